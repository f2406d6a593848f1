"""Images that resemble one another by chance as little as slices of different heads do, and copies of them."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

Change = Callable[[np.ndarray], np.ndarray]


def smooth_images(count: int, seed: int = 0, size: int = 128) -> np.ndarray:
    """Random smooth images, uint8 (count, size, size, 1)."""
    coarse = np.random.default_rng(seed).integers(30, 180, (count, 8, 8), np.uint8)
    resized = [np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC)) for field in coarse]
    return np.stack(resized)[..., np.newaxis]


def brighter(image: np.ndarray) -> np.ndarray:
    return image + np.uint8(30)


def less_contrast(image: np.ndarray) -> np.ndarray:
    return (60 + 0.4 * image).astype(np.uint8)


def recompressed(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer))[..., np.newaxis]


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def trimmed(image: np.ndarray) -> np.ndarray:
    """Without a margin of 1 % on each side, enlarged to what it was."""
    return _crop(image, len(image) // 100)


def cropped(image: np.ndarray) -> np.ndarray:
    """Without a margin of 10 % on each side, enlarged to what it was."""
    return _crop(image, len(image) // 10)


def mirrored(image: np.ndarray) -> np.ndarray:
    return image[:, ::-1]


def negative(image: np.ndarray) -> np.ndarray:
    return 255 - image


def _crop(image: np.ndarray, margin: int) -> np.ndarray:
    size = len(image)
    inside = Image.fromarray(image[margin : size - margin, margin : size - margin, 0])
    return np.asarray(inside.resize((size, size), Image.Resampling.BILINEAR))[..., np.newaxis]
