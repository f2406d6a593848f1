"""Preprocess images for a network: crop and resize them once, then augment and normalise them at every step."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from jaxcnn.data.augment import Augment
from jaxcnn.data.head import crop_to_head
from jaxcnn.data.normalization import NORMALIZATIONS

Pixels = UInt8[Array | np.ndarray, "batch height width channel"]
Images = Float[Array, "batch height width channel"]

# The names that --crop takes; each gives the part of an image in [0, 1] that matters, in a height and a width.
CROPS: dict[str, Callable[[Images, tuple[int, int]], Images]] = {"head": crop_to_head}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of every image, in training and in use; it belongs to the weights and is saved with them.

    Attributes:
        crop: `none`, or the name of a crop in `CROPS`.
        image_size: height and width of what the network sees, whatever those of the images are; None leaves them.
        normalization: of the intensities, a name in `NORMALIZATIONS`.
    """

    crop: str = "none"
    image_size: int | None = None
    normalization: str = "none"

    def framed_shape(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return (height, width, channel) of a framed image."""
        height, width, channels = image_shape
        return (self.image_size or height, self.image_size or width, channels)

    def seen_shape(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return (height, width, channel) of the network's input: the normalisation may turn one channel into three."""
        framed = jax.ShapeDtypeStruct((1, *self.framed_shape(image_shape)), jnp.float32)
        _, height, width, channels = jax.eval_shape(NORMALIZATIONS[self.normalization], framed).shape
        return height, width, channels

    def keeps_frame(self, image_shape: tuple[int, ...]) -> bool:
        """Whether framing leaves images of this shape as they are."""
        return self.crop == "none" and self.framed_shape(image_shape) == image_shape


def preprocessing_from_json(content: Mapping[str, Any]) -> Preprocessing:
    """Read the preprocessing that was saved with weights.

    Raises:
        KeyError, TypeError: it has other fields, or a crop or normalisation of another name.
    """
    # Before there was a table of crops, the only one was on or off.
    crop = {False: "none", True: "head"}.get(content["crop"], content["crop"])
    preprocessing = Preprocessing(**{**content, "crop": crop})
    NORMALIZATIONS[preprocessing.normalization]
    {"none": None, **CROPS}[preprocessing.crop]
    return preprocessing


def frame(images: Pixels, preprocessing: Preprocessing) -> UInt8[Array | np.ndarray, "batch rows columns channel"]:
    """Crop and resize each image to what the network sees (bilinear, antialiased), as bytes.

    An image always gives the same result, so training does this once, before the first step.
    """
    if preprocessing.keeps_frame(images.shape[1:]):
        return images
    shape = preprocessing.framed_shape(images.shape[1:])
    floats = jnp.asarray(images, jnp.float32) / 255
    if preprocessing.crop == "none":
        framed = jax.image.resize(floats, (images.shape[0], *shape), "linear")
    else:
        framed = CROPS[preprocessing.crop](floats, shape[:2])
    return jnp.round(255 * framed).astype(jnp.uint8)


def frame_masks(
    masks: UInt8[Array | np.ndarray, "batch height width"], preprocessing: Preprocessing, classes: int
) -> UInt8[Array | np.ndarray, "batch rows columns"]:
    """Resize masks as `frame` does their images; see `resize_masks`."""
    size = preprocessing.image_size
    return masks if size is None else resize_masks(np.asarray(masks), (size, size), classes)


def resize_masks(
    masks: UInt8[np.ndarray, "n height width"], shape: tuple[int, int], classes: int
) -> UInt8[np.ndarray, "n rows columns"]:
    """Resize masks: a pixel has the class that covers most of it (bilinear areas, antialiased)."""
    if masks.shape[1:] == shape:
        return masks
    parts = [np.asarray(_resize(mask, shape, classes)) for mask in masks]
    return np.stack(parts) if parts else np.zeros((0, *shape), np.uint8)


@partial(jax.jit, static_argnums=(1, 2))
def _resize(mask: UInt8[Array, "height width"], shape: tuple[int, int], classes: int) -> UInt8[Array, "rows columns"]:
    areas = jax.image.resize(jax.nn.one_hot(mask, classes), (*shape, classes), "linear")
    return jnp.argmax(areas, axis=-1).astype(jnp.uint8)


def as_inputs(
    framed: Pixels,
    preprocessing: Preprocessing,
    augmentation: Augment | None = None,
    keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch height width _"]:
    """Framed images as floats, from [0, 1] changed at random and then normalised.

    Nothing is random without an augmentation and keys, one an image.
    """
    floats = jnp.asarray(framed, jnp.float32) / 255.0
    if augmentation is not None and keys is not None:
        floats = augmentation(keys, floats)
    return NORMALIZATIONS[preprocessing.normalization](floats)


def preprocess(images: Pixels, preprocessing: Preprocessing) -> Float[Array, "batch rows columns _"]:
    """Frame and normalise images, which is all the preprocessing in use."""
    return as_inputs(frame(images, preprocessing), preprocessing)
