"""Convert intensities without a fixed scale (16 bits, floats) to 8-bit grey, and colours to intensities."""

import numpy as np
from jaxtyping import Float32, Num, UInt8

# The percentiles of a file's intensities that become black and white; what lies outside is cut off. So the brightest
# vessel or a dead pixel doesn't darken all else.
BLACK, WHITE = 0.5, 99.5


def to_bytes(values: Num[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Grey levels from 0 at the percentile `BLACK` of all values to 255 at the percentile `WHITE`.

    Where so few values differ from the others that the percentiles are equal, the smallest and the largest value are
    taken instead; where all are equal, all is black. What is not a number is black, too.
    """
    floats = values.astype(np.float32)
    finite = floats[np.isfinite(floats)]
    if not finite.size:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(finite, [BLACK, WHITE])
    if low == high:
        low, high = finite.min(), finite.max()
    return between(np.where(np.isfinite(floats), floats, np.float32(low)), float(low), float(high))


def between(values: Num[np.ndarray, "*shape"], low: float, high: float) -> UInt8[np.ndarray, "*shape"]:
    """Grey levels from 0 at `low` to 255 at `high`; all is black where these are equal."""
    scaled = (values.astype(np.float32) - np.float32(low)) / np.float32((high - low) or 1)
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def luma(colours: Num[np.ndarray, "*shape 3"]) -> Float32[np.ndarray, "*shape"]:
    """Grey of red, green and blue by ITU-R 601-2, as Pillow's "L"."""
    return colours.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
