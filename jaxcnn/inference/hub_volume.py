"""The preprocessing that the hub's network was trained with: mateuszbuda/brain-segmentation-pytorch, utils.py.

It is of a patient's whole stack: crop to the brain, pad to a square, resize to 256x256, clip at percentiles, z-score.
"""

import numpy as np
from jaxtyping import Float32, UInt8
from scipy import ndimage

from jaxcnn.data.normalization import VOLUME_PERCENTILES

SIZE = 256
# Below this share of the brightest value of the stack is background, which is also made black.
_BACKGROUND = 0.1


def prepare_hub_volume(
    images: UInt8[np.ndarray, "n height width channel"],
) -> tuple[Float32[np.ndarray, "n 256 256 channel"], tuple[tuple[int, int], ...], int]:
    """Prepare a stack.

    The slices outside of the box are black ones for the network, which the original leaves out.

    Returns:
        The inputs; the box that holds the brain (first and last + 1 of slices, rows and columns); and the side of the
        square that this became, before it was resized.
    """
    volume = np.where(images < _BACKGROUND * images.max(), 0, images)
    shown = volume.max(axis=3) > 0
    box = tuple(_extent(shown.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    (first, last), (top, bottom), (left, right) = box
    cropped = volume[first:last, top:bottom, left:right] / 255
    square = max(bottom - top, right - left)
    missing = [(0, 0), *((gap // 2, gap - gap // 2) for gap in (square - bottom + top, square - right + left)), (0, 0)]
    padded = np.pad(cropped, missing)
    zoom = (1, SIZE / square, SIZE / square, 1)
    # As scikit-image's `resize` of second order, without antialiasing.
    resized = ndimage.zoom(padded, zoom, order=2, mode="grid-constant", grid_mode=True)
    resized = np.clip(resized, padded.min(), padded.max())
    clipped = np.clip(resized, *np.percentile(resized, VOLUME_PERCENTILES))
    deviation = clipped.std(axis=(0, 1, 2))
    scaled = (clipped - clipped.mean(axis=(0, 1, 2))) / np.where(deviation > 0, deviation, 1)
    inputs = np.zeros((len(images), SIZE, SIZE, images.shape[3]), np.float32)
    inputs[:] = scaled.min(axis=(0, 1, 2))
    inputs[first:last] = scaled
    return inputs, box, square


def _extent(shown: np.ndarray) -> tuple[int, int]:
    places = np.flatnonzero(shown)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, len(shown))
