"""Masks from slices, and how well they agree with those that were drawn by hand."""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from jaxcnn.normalization import NORMALIZATIONS
from jaxcnn.pretrained import Pretrained

_BATCH_SIZE = 8


def predict_masks(
    unet: Pretrained, images: UInt8[np.ndarray, "n height width channel"]
) -> Bool[np.ndarray, "n height width"]:
    """The pixels to which a U-Net with one mask gives a probability above 0.5.

    Raises:
        ValueError: the U-Net doesn't take images of this shape.
    """
    normalize = NORMALIZATIONS[unet.manifest.normalization]

    def mask(image: Float[Array, "height width channel"]) -> Bool[Array, "height width"]:
        logits = cast(Array, unet.model.apply(unet.variables, normalize(image[jnp.newaxis]), train=False))
        return logits[0, :, :, 0] > 0

    @jax.jit
    def masks(images: UInt8[Array, "n height width channel"]) -> Bool[Array, "n height width"]:
        return jax.lax.map(lambda image: mask(image.astype(jnp.float32) / 255.0), images, batch_size=_BATCH_SIZE)

    return np.asarray(masks(images))


def dice(predicted: Bool[np.ndarray, "*shape"], true: Bool[np.ndarray, "*shape"]) -> float:
    """Dice's coefficient 2 |A and B| / (|A| + |B|) over all pixels; 1 where both masks are empty, and so agree."""
    pixels = predicted.sum() + true.sum()
    return float(2 * (predicted & true).sum() / pixels) if pixels else 1.0
