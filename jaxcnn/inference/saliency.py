"""Show where in an image the evidence for a class lies: Grad-CAM."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxcnn.data.preprocessing import preprocess
from jaxcnn.errors import UserError
from jaxcnn.inference.trained import Members
from jaxcnn.inference.tta import join_maps, strongest_as_1, views_of
from jaxcnn.models.architecture import FeatureMap
from jaxcnn.models.table import feature_map_of

Features = Float[Array, "batch rows columns feature"]


def explain(
    members: Members,
    images: UInt8[Array, "batch height width channel"],
    labels: Int[Array, " batch"],
) -> tuple[Float[Array, "batch rows columns channel"], Float[Array, "batch rows columns"]]:
    """The images as the networks see them, but for the normalisation, and their maps over all members and views.

    Raises:
        UserError: as `check_has_maps`.
    """
    check_has_maps(members)
    visible = preprocess(images, dataclasses.replace(members[0].preprocessing, normalization="none"))
    maps = []
    for trained in members:
        views = [preprocess(view, trained.preprocessing) for view in views_of(images, trained.tta)]
        maps.append(join_maps(tuple(grad_cam(trained.model, trained.variables, view, labels) for view in views)))
    return visible, strongest_as_1(sum(maps[1:], maps[0]))


def check_has_maps(members: Members) -> None:
    """Refuse classifiers that `explain` can't explain, before anything takes time.

    Raises:
        UserError: one has no feature map, or they don't see the same part of an image at the same size.
    """
    for trained in members:
        if feature_map_of(trained.model) is None:
            raise UserError(f"saliency: {type(trained.model).__name__} has no feature map; give a run of another model")
    if len({dataclasses.replace(trained.preprocessing, normalization="none") for trained in members}) > 1:
        raise UserError("saliency: the runs see images at different sizes or crops; ask one of them")


def grad_cam(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Float[Array, "batch height width channel"],
    labels: Int[Array, " batch"],
) -> Float[Array, "batch height width"]:
    """Compute Grad-CAM maps (Selvaraju et al., 2017): the parts of each image that are evidence for a class.

    The channels of the last feature map are added up, each weighted by the mean gradient of the class's logit with
    respect to it (equation 1), and what is negative is cut off (equation 2). The sum is interpolated to the image and
    divided by its maximum, so that maps of different images can't be compared in strength.

    Args:
        model: a network that has a feature map (`jaxcnn.models.table.feature_map_of`).
        variables: what `model.apply` takes.
        images: preprocessed, as the model expects them.
        labels: the class of each image to explain.

    Returns:
        Values in [0, 1]; all 0 where nothing speaks for the class.

    Raises:
        ValueError: the model is another one.
    """
    features, logits_of = split_at_features(model, variables, images)
    layer = feature_map_of(model)
    assert layer is not None

    def explained(features: Features) -> Float[Array, ""]:
        # In inference an image's logits depend on its own features alone, so one sum gives every image's gradient.
        return jnp.sum(jnp.take_along_axis(logits_of(features), labels[:, None], axis=1))

    weights = jnp.mean(jax.grad(explained)(features), axis=(1, 2))
    cells = nn.relu(jnp.einsum("brck,bk->brc", features, weights))
    (height, width), (rows, columns) = images.shape[1:3], cells.shape[1:3]
    down, across = _interpolation(height, rows, layer), _interpolation(width, columns, layer)
    maps = jnp.einsum("hr,brc,wc->bhw", down, cells, across)
    return strongest_as_1(maps)


def split_at_features(
    model: nn.Module, variables: Mapping[str, Any], images: Float[Array, "batch height width channel"]
) -> tuple[Features, Callable[[Features], Float[Array, "batch classes"]]]:
    """The last feature map of a network for these images, and the rest: from it to the logits.

    Raises:
        ValueError: the network has none.
    """
    layer = feature_map_of(model)
    if layer is None:
        raise ValueError(f"{type(model).__name__} has no feature map")
    names, seen = layer.seen_by, list[Features]()

    def logits(change: Callable[[Features], Features]) -> Array:
        def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if context.module.path not in [(name,) for name in names] or context.method_name != "__call__":
                return call(*args, **kwargs)
            return call(change(*args), **kwargs)

        with nn.intercept_methods(intercept):
            return cast(Array, model.apply(variables, images, train=False))

    def remember(features: Features) -> Features:
        seen.append(features)
        return features

    logits(remember)
    (features,) = seen
    return features, lambda features: logits(lambda _: features)


def _interpolation(size: int, cells: int, layer: FeatureMap) -> Float[Array, "size cells"]:
    """The weights of the cells for each pixel along one axis: linear, and beyond the outermost cells constant."""
    place = jnp.clip((jnp.arange(size, dtype=jnp.float32) - layer.first) / layer.stride, 0, cells - 1)
    return jnp.maximum(0, 1 - jnp.abs(place[:, None] - jnp.arange(cells, dtype=jnp.float32)))
