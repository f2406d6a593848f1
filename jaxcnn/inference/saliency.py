"""Show where in an image the evidence for a class lies: Grad-CAM."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxcnn.data.preprocessing import preprocess
from jaxcnn.inference.trained import Trained
from jaxcnn.inference.tta import join_maps, views_of
from jaxcnn.models.architecture import FeatureMap
from jaxcnn.models.table import architecture_of

Features = Float[Array, "batch rows columns channel"]


def explain(
    trained: Trained,
    variables: Mapping[str, Any],
    images: UInt8[Array, "batch height width channel"],
    labels: Int[Array, " batch"],
) -> tuple[Float[Array, "batch rows columns channel"], Float[Array, "batch rows columns"]]:
    """The images as a trained network sees them, but for the normalisation, and their maps over all its views.

    The variables are the network's; they are an argument, so that a compiled program shares them with others.
    """
    visible = preprocess(images, dataclasses.replace(trained.preprocessing, normalization="none"))
    views = [preprocess(view, trained.preprocessing) for view in views_of(images, trained.tta)]
    return visible, join_maps(tuple(grad_cam(trained.model, variables, view, labels) for view in views))


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
        model: a network of the table of models that has a feature map.
        variables: what `model.apply` takes.
        images: preprocessed, as the model expects them.
        labels: the class of each image to explain.

    Returns:
        Values in [0, 1]; all 0 where nothing speaks for the class.

    Raises:
        ValueError: the model is another one.
    """
    layer = architecture_of(model).feature_map
    if layer is None:
        raise ValueError(f"{type(model).__name__} has no feature map in the table of models")
    features, logits_of = _split(model, variables, images, layer.seen_by)

    def explained(features: Features) -> Float[Array, ""]:
        # In inference an image's logits depend on its own features alone, so one sum gives every image's gradient.
        return jnp.sum(jnp.take_along_axis(logits_of(features), labels[:, None], axis=1))

    weights = jnp.mean(jax.grad(explained)(features), axis=(1, 2))
    cells = nn.relu(jnp.einsum("brck,bk->brc", features, weights))
    (height, width), (rows, columns) = images.shape[1:3], cells.shape[1:3]
    down, across = _interpolation(height, rows, layer), _interpolation(width, columns, layer)
    maps = jnp.einsum("hr,brc,wc->bhw", down, cells, across)
    largest = jnp.max(maps, axis=(1, 2), keepdims=True)
    return maps / jnp.where(largest > 0, largest, 1)


def _split(
    model: nn.Module, variables: Mapping[str, Any], images: Array, layer: tuple[str, ...]
) -> tuple[Features, Callable[[Features], Float[Array, "batch classes"]]]:
    """The input of a layer for these images, and the rest of the model: from that input to the logits."""
    seen: list[Features] = []

    def logits(change: Callable[[Features], Features]) -> Array:
        def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if context.module.path not in [(name,) for name in layer] or context.method_name != "__call__":
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
