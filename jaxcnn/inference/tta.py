"""Test-time augmentation: average the predictions for several views of an image."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

TTAName = Literal["none", "flip"]

_SHAPE = "batch height width channel"
Images = TypeVar("Images", Num[Array, _SHAPE], Num[np.ndarray, _SHAPE])


# The images themselves come first; `join_maps` takes the others for mirror images.
VIEWS: dict[TTAName, Callable[[Any], tuple[Any, ...]]] = {
    "none": lambda images: (images,),
    "flip": lambda images: (images, images[:, :, ::-1]),
}


def views_of(images: Images, tta: TTAName) -> tuple[Images, ...]:
    """Return the views to average over: the images, and with `flip` also their left-right mirror images.

    Each is an image like any other, and goes through all that images go through.
    """
    return VIEWS[tta](images)


def average_probabilities(
    logits: Float[Array, "rows *space classes"], views: int
) -> Float[Array, "batch *space classes"]:
    """Average the views' probabilities and return their logarithm, which serves as logits.

    Args:
        logits: of the first example's views, then of the second's, and so on; those of the pixels of a mirror image are
            mirrored back before.
        views: of each example; the logits of a single view are returned as they are.
    """
    if views == 1:
        return logits
    of_views = jax.nn.log_softmax(logits).reshape(-1, views, *logits.shape[1:])
    if logits.ndim > 2:
        of_views = of_views.at[:, 1:].set(of_views[:, 1:, :, ::-1])
    return jax.nn.logsumexp(of_views, axis=1) - math.log(views)


def join_maps(maps: tuple[Float[Array, "batch height width"], ...]) -> Float[Array, "batch height width"]:
    """Combine the maps of an image's views, in the order of `views_of`, into one map per image.

    Returns:
        Their sum over its maximum, in [0, 1]; the mirror image's map is mirrored back before.
    """
    plain, *mirrored = maps
    return strongest_as_1(sum((of_view[:, :, ::-1] for of_view in mirrored), plain))


def strongest_as_1(maps: Float[Array, "batch height width"]) -> Float[Array, "batch height width"]:
    """Divide each map by its maximum; a map of zeros stays one."""
    largest = jnp.max(maps, axis=(1, 2), keepdims=True)
    return maps / jnp.where(largest > 0, largest, 1)
