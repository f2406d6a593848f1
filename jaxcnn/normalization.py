"""What is done to images in [0, 1] before a network sees them; weights only work with what they were trained with."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Images = Float[Array, "batch height width channel"]

NormalizationName = Literal["none", "per-image-z-score"]


def unchanged(images: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width channel"]:
    """The images as they are."""
    return images


def per_image_z_score(images: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width channel"]:
    """Each channel of each image minus its mean, over its standard deviation + 1e-3, so that black stays finite."""
    mean = jnp.mean(images, axis=(1, 2), keepdims=True)
    deviation = jnp.std(images, axis=(1, 2), keepdims=True)
    return (images - mean) / (deviation + 1e-3)


NORMALIZATIONS: dict[NormalizationName, Callable[[Images], Images]] = {
    "none": unchanged,
    "per-image-z-score": per_image_z_score,
}
