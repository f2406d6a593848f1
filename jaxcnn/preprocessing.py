"""From the bytes of an image to what a network sees."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from jaxcnn.data.augment import Augmentation, augment
from jaxcnn.data.head import crop_to_head
from jaxcnn.normalization import NORMALIZATIONS, NormalizationName


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to every image, in training as in use; it belongs to the weights and is kept with them.

    Attributes:
        crop: to the head.
        normalization: of the intensities.
    """

    crop: bool = False
    normalization: NormalizationName = "none"


def preprocess(
    images: UInt8[Array | np.ndarray, "batch height width channel"],
    preprocessing: Preprocessing,
    augmentation: Augmentation = Augmentation(),  # noqa: B008  (frozen)
    keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch height width channel"]:
    """Floats in [0, 1], cropped, changed at random, normalised, in this order.

    Without keys nothing is random, whatever `augmentation` says.
    """
    floats = jnp.asarray(images, jnp.float32) / 255.0
    if preprocessing.crop:
        floats = crop_to_head(floats)
    if keys is not None:
        floats = augment(keys, floats, augmentation)
    return NORMALIZATIONS[preprocessing.normalization](floats)
