"""Read NIfTI volumes (.nii, .nii.gz) with nibabel: the slices that are not empty."""

import contextlib
import dataclasses
import gzip
import io
import logging
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from jaxcnn.data.files import FileError
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.scan import MAX_VOXELS, Scan, Slice, check_size
from jaxcnn.errors import importing

# A slice counts if so large a part of its pixels is above this grey level (of 255); others show hardly more than air.
FOREGROUND_LEVEL, FOREGROUND_SHARE = 25, 0.1
# Voxels so much longer along one axis than along the others show the plane that was acquired.
_LONGER = 1.1
# Of a volume of 64-bit floats, the widest there are, and its header.
MOST_BYTES = 8 * MAX_VOXELS + 1_000_000


def read_nifti(encoded: bytes) -> Scan:
    """Read a volume and cut it into slices.

    - The volume is brought to the canonical orientation, and cut across the axis along which voxels are longest by more
      than a tenth: the plane that was acquired. Otherwise the slices are axial.
    - A slice is taken if at least a tenth of its pixels is above a tenth of the grey scale.
    - Slices lie as radiologists look at them: the patient's right is on the left, or the front where the head is seen
      from the side; the front or the top of the head is on top.
    - Grey levels are those of `jaxcnn.data.readers.intensities.to_bytes`, for all slices alike.

    Raises:
        UserError: nibabel is not installed.
        FileError: the file is no volume of one number a voxel, is too large, or holds several volumes.
        Exception: any other, of nibabel or gzip: the file is no NIfTI file, or is damaged.
    """
    volume = read_volume(encoded)
    pictures = to_bytes(volume.pictures[..., 0])
    check_size(*pictures.shape[:0:-1])
    return Scan(tuple(Slice(pictures[place], str(place + 1)) for place in np.flatnonzero(_shows_something(pictures))))


@dataclasses.dataclass(frozen=True)
class Volume:
    """A NIfTI volume in slices.

    Attributes:
        pictures: the slices as radiologists look at them, in the acquired plane; the channels are volumes of a series.
        axis: of the canonical volume, which the slices lie across.
        image: what nibabel read.
    """

    pictures: Float32[np.ndarray, "n height width channel"]
    axis: int
    image: Any

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of the slices, height and width of a pixel, in mm."""
        import nibabel

        zooms = nibabel.as_closest_canonical(self.image.slicer[..., *[0] * (self.image.ndim - 3)]).header.get_zooms()
        sizes = [float(zooms[axis]) for axis in (self.axis, *(axis for axis in (2, 1, 0) if axis != self.axis))]
        return sizes[0], sizes[1], sizes[2]

    def with_pictures(self, pictures: UInt8[np.ndarray, "n height width"]) -> bytes:
        """A .nii.gz file in which these take the place of the slices, with the same shape and affine."""
        import nibabel

        canonical = np.flip(np.moveaxis(pictures[::-1].swapaxes(1, 2), 0, self.axis))
        back = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("RAS"), nibabel.io_orientation(self.image.affine)
        )
        values = np.ascontiguousarray(nibabel.apply_orientation(canonical, back))
        header = self.image.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        # Without the time, so that the same masks give the same file.
        return gzip.compress(type(self.image)(values, self.image.affine, header).to_bytes(), mtime=0)


def read_volume(encoded: bytes, most_channels: int = 1, axis: int | None = None) -> Volume:
    """Read a volume, or a series of up to so many as channels, and cut it into slices.

    Args:
        encoded: the file.
        most_channels: the most volumes of a series.
        axis: to cut across, of the canonical volume; that of the longest voxels if not given.

    Raises:
        UserError, FileError: as `read_nifti`.
    """
    with importing("nibabel", needed_by="NIfTI files", extra="nifti"):
        import nibabel
    content = _unpacked(encoded)
    # The first four bytes say which it is by the size of the header, in whichever order of bytes.
    sizes = [struct.unpack(order + "i", content[:4])[0] for order in "<>" if len(content) >= 4]
    kind = nibabel.Nifti2Image if 540 in sizes else nibabel.Nifti1Image
    with _quiet(nibabel.imageglobals.logger):
        image = kind.from_bytes(content)
        _check_shape(image.shape, image.get_data_dtype(), most_channels)
        volume = nibabel.as_closest_canonical(image)
        values = np.asarray(volume.dataobj, np.float32).reshape(*volume.shape[:3], -1)
    if axis is None:
        zooms = volume.header.get_zooms()[:3]
        longest = int(np.argmax(zooms))
        axis = longest if zooms[longest] > _LONGER * np.median(zooms) else 2
    # Axes of the canonical volume point to the patient's right, front and top.
    return Volume(np.moveaxis(np.flip(values, (0, 1, 2)), axis, 0).swapaxes(1, 2)[::-1], axis, image)


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep a logger from telling of each oddity; nibabel's own way to do that lets the root's handlers tell."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _unpacked(encoded: bytes) -> bytes:
    if not encoded.startswith(b"\x1f\x8b"):
        return encoded
    with gzip.GzipFile(fileobj=io.BytesIO(encoded)) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise FileError(f"is too large: more than {MOST_BYTES // 10**6} MB once it is unpacked")
    return content


def _check_shape(shape: tuple[int, ...], kind: np.dtype, most_channels: int) -> None:
    if kind.fields or np.issubdtype(kind, np.complexfloating):
        raise FileError("is a NIfTI volume of colours or complex numbers; save one number per voxel")
    if len(shape) < 3:
        raise FileError(f"is a NIfTI file of shape {shape}, which is not a volume; save it as a picture")
    if (count := int(np.prod(shape[3:]))) > most_channels:
        raise FileError(f"is a series of {count} NIfTI volumes ({len(shape)}-D); save one volume per file")
    smallest, middle, largest = sorted(shape[:3])
    if min(shape[:3]) < 1:
        raise FileError(f"is an empty NIfTI volume of shape {shape}")
    check_size(largest, middle, smallest)


def _shows_something(pictures: UInt8[np.ndarray, "n height width"]) -> Bool[np.ndarray, " n"]:
    shares = (pictures > FOREGROUND_LEVEL).mean(axis=(1, 2))
    shown = shares >= FOREGROUND_SHARE
    # Of a volume that shows next to nothing, the slice that shows most.
    return shown if shown.any() else np.arange(len(shares)) == np.argmax(shares)
