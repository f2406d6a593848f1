"""From the bytes of an image to what a network sees: framed once, then changed and normalised at every step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from jaxcnn.data.augment import Augmentation, augment
from jaxcnn.data.head import crop_to_head
from jaxcnn.data.normalization import NORMALIZATIONS, NormalizationName


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to every image, in training as in use; it belongs to the weights and is kept with them.

    Attributes:
        crop: to the head.
        image_size: height and width of what the network sees, whatever those of the images are; None leaves them.
        normalization: of the intensities.
    """

    crop: bool = False
    image_size: int | None = None
    normalization: NormalizationName = "none"

    def framed_shape(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(height, width, channel) of an image that was framed."""
        height, width, channels = image_shape
        return (self.image_size or height, self.image_size or width, channels)

    def keeps_frame(self, image_shape: tuple[int, ...]) -> bool:
        """Whether framing leaves images of this shape as they are."""
        return not self.crop and self.framed_shape(image_shape) == image_shape


def frame(
    images: UInt8[Array | np.ndarray, "batch height width channel"], preprocessing: Preprocessing
) -> UInt8[Array | np.ndarray, "batch rows columns channel"]:
    """The part of each image that the network sees, in its size: cropped and resized (bilinear, smoothed), as bytes.

    An image always gives the same result, so training does this once, before the first step.
    """
    if preprocessing.keeps_frame(images.shape[1:]):
        return images
    shape = preprocessing.framed_shape(images.shape[1:])
    floats = jnp.asarray(images, jnp.float32) / 255
    if preprocessing.crop:
        framed = crop_to_head(floats, shape[:2])
    else:
        framed = jax.image.resize(floats, (len(images), *shape), "linear")
    return jnp.round(255 * framed).astype(jnp.uint8)


def as_inputs(
    framed: UInt8[Array | np.ndarray, "batch height width channel"],
    preprocessing: Preprocessing,
    augmentation: Augmentation = Augmentation(),  # noqa: B008  (frozen)
    keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch height width channel"]:
    """Framed images as floats, from [0, 1] changed at random and then normalised.

    Without keys nothing is random, whatever `augmentation` says.
    """
    floats = jnp.asarray(framed, jnp.float32) / 255.0
    if keys is not None:
        floats = augment(keys, floats, augmentation)
    return NORMALIZATIONS[preprocessing.normalization](floats)


def preprocess(
    images: UInt8[Array | np.ndarray, "batch height width channel"], preprocessing: Preprocessing
) -> Float[Array, "batch rows columns channel"]:
    """All that is done to an image in use: framed and normalised."""
    return as_inputs(frame(images, preprocessing), preprocessing)
