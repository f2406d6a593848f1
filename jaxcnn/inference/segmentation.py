"""Segment slices, and compare the masks with those that were drawn by hand."""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from jaxcnn.data.normalization import NORMALIZATIONS
from jaxcnn.inference.pretrained import Pretrained

_BATCH_SIZE = 8


def predict_masks(
    unet: Pretrained, images: UInt8[np.ndarray, "n height width channel"]
) -> Bool[np.ndarray, "n height width"]:
    """Segment slices: find the pixels to which a U-Net with one mask gives a probability above 0.5.

    Raises:
        ValueError: the U-Net doesn't take images of this shape.
    """
    normalize = NORMALIZATIONS[unet.manifest.normalization]

    @jax.jit
    def masks(images: UInt8[Array, "batch height width channel"]) -> Bool[Array, "batch height width"]:
        floats = normalize(images.astype(jnp.float32) / 255.0)
        return cast(Array, unet.model.apply(unet.variables, floats, train=False))[..., 0] > 0

    predicted = []
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE]
        # All batches are of one size, so that one program serves them.
        missing = min(_BATCH_SIZE, len(images)) - len(batch)
        filled = np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)])
        predicted.append(np.asarray(masks(filled))[: len(batch)])
    return np.concatenate(predicted)


def dice(predicted: Bool[np.ndarray, "*shape"], true: Bool[np.ndarray, "*shape"]) -> float:
    """Compute the Dice coefficient 2 |A and B| / (|A| + |B|) over all pixels; it is 1 if both masks are empty."""
    pixels = predicted.sum() + true.sum()
    return float(2 * (predicted & true).sum() / pixels) if pixels else 1.0
