"""The content of a file, as a reader returns it."""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from jaxcnn.data.files import FileError

MIN_SIDE = 16
# Of a picture, or of all slices of a volume together.
MAX_PIXELS = 64_000_000
MAX_VOXELS = 128_000_000


@dataclasses.dataclass(frozen=True)
class Slice:
    """A grey image: 0 is black, 255 white.

    Attributes:
        pixels: the image.
        part: what tells it from the other slices of its file, such as "12"; "" where the file is one image.
    """

    pixels: UInt8[np.ndarray, "height width"]
    part: str = ""


@dataclasses.dataclass(frozen=True)
class Scan:
    """The content of a file.

    Attributes:
        slices: at least one.
        patient: whose images they are; "" where the file doesn't tell.
        label: the class; "" where the file doesn't tell.
    """

    slices: tuple[Slice, ...]
    patient: str = ""
    label: str = ""


def check_size(width: int, height: int, slices: int = 1) -> None:
    """Check that an image is not too large to be read into memory, nor too small to be a scan.

    Raises:
        FileError: it is one of the two.
    """
    if slices == 1 and width * height > MAX_PIXELS:
        raise FileError(f"is too large: {width}x{height} pixels, more than {MAX_PIXELS // 10**6} megapixels")
    if width * height * slices > MAX_VOXELS:
        raise FileError(
            f"is too large: {slices} slices of {width}x{height} pixels, more than {MAX_VOXELS // 10**6} megapixels"
        )
    if min(width, height) < MIN_SIDE:
        raise FileError(f"is too small: {width}x{height} pixels, less than {MIN_SIDE} on a side")
