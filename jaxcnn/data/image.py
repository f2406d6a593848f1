"""Resize a grey image of any size to the small square that a network takes."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def to_square(pixels: UInt8[np.ndarray, "height width"], size: int) -> UInt8[np.ndarray, "{size} {size} 1"]:
    """Resize a grey image to a square with sides of `size` pixels.

    The resampling is Pillow's BILINEAR: a triangle filter as wide as the reduction, hence antialiased; unlike BOX it
    stays smooth where a small image grows, and unlike BICUBIC and LANCZOS it does not overshoot at the bright edge of a
    skull. The aspect ratio is not kept, as in the reference.
    """
    resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)[..., np.newaxis]
