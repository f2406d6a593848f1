"""The same inputs for both sides."""

import io

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image


def random_images(batch: int, size: int, channels: int) -> UInt8[np.ndarray, "batch size size channels"]:
    """Noise: what a convolution costs does not depend on what it sees."""
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, channels), np.uint8)


def random_labels(batch: int) -> Int32[np.ndarray, " batch"]:
    """Of four classes."""
    return np.random.default_rng(1).integers(0, 4, batch, np.int32)


def random_masks(batch: int, size: int) -> UInt8[np.ndarray, "batch size size"]:
    """Of one class beside the background."""
    return np.random.default_rng(1).integers(0, 2, (batch, size, size), np.uint8)


def encoded_images(count: int) -> list[bytes]:
    """Smooth 512x512 JPEG files in RGB, as most of the real scans are."""
    files = []
    for noise in np.random.default_rng(2).integers(0, 256, (count, 16, 16), np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC).convert("RGB").save(buffer, "JPEG")
        files.append(buffer.getvalue())
    return files
