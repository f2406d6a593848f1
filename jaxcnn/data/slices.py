"""Read slices to segment, from one or more patients, with or without masks that were drawn by hand."""

import dataclasses
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from jaxcnn.data.readers.pictures import shown_upright
from jaxcnn.errors import UserError

# Pillow knows dozens of formats; some of them start other programs.
_FORMATS = ("JPEG", "PNG", "TIFF")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_MASK = "_mask"


@dataclasses.dataclass(frozen=True)
class Slices:
    """Slices of equal size, in the order of the file, or of the numbers in the files' names.

    Attributes:
        images: 8 bits a channel; in the LGG data the channels are MRI sequences: before contrast, FLAIR, after.
        masks: where the tumour is, or None if that isn't known.
        patients: the one of each slice.
    """

    images: UInt8[np.ndarray, "n height width 3"]
    masks: Bool[np.ndarray, "n height width"] | None
    patients: tuple[str, ...]

    @property
    def patient_names(self) -> tuple[str, ...]:
        """Each patient once."""
        return tuple(dict.fromkeys(self.patients))

    def places(self, patient: str) -> Int[np.ndarray, " k"]:
        """Where the patient's slices are."""
        return np.flatnonzero(np.array(self.patients) == patient)


def load_slices(source: Path) -> Slices:
    """Read an NPZ file or a folder.

    An NPZ file holds `images`, uint8 of shape (n, height, width, 3), and may hold `masks`, bool of shape
    (n, height, width), and `patients`, n names. A folder holds image files, in folders named after the patients, as
    the public LGG data (mateuszbuda/lgg-mri-segmentation) comes; the mask of NAME.tif is NAME_mask.tif beside it.

    Raises:
        UserError: there is nothing there, or it is none of the two.
    """
    if source.is_dir():
        return _from_folder(source)
    if source.is_file():
        return _from_npz(source)
    raise UserError(f"{source}: no such file or folder; give an NPZ file or a folder of images")


def _from_npz(path: Path) -> Slices:
    try:
        # Opened here, since NumPy leaves a file open that turns out to be damaged.
        with path.open("rb") as file, np.load(_zipped(file), allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in ("images", "masks", "patients") if name in arrays}
    except Exception as error:  # A damaged one makes NumPy and zipfile raise many kinds.
        raise UserError(f"{path}: is not an NPZ file of plain arrays; give one that numpy.savez wrote") from error
    images, masks = content.get("images"), content.get("masks")
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise UserError(f"{path}: `images` must be uint8 of shape (n, height, width, 3), and is {_describe(images)}")
    if masks is not None and (masks.dtype != np.bool or masks.shape != images.shape[:3]):
        raise UserError(f"{path}: `masks` must be bool of shape {images.shape[:3]}, and is {_describe(masks)}")
    patients = content.get("patients", np.full(len(images), path.stem))
    if patients.shape != images.shape[:1]:
        raise UserError(f"{path}: `patients` must be {len(images)} names, and is {_describe(patients)}")
    return Slices(images, masks, tuple(map(str, patients)))


def _zipped(file: BinaryIO) -> BinaryIO:
    """The file, if it is a zip, as NPZ files are; NumPy would read other files too."""
    if not zipfile.is_zipfile(file):
        raise ValueError("no zip")
    file.seek(0)
    return file


def _describe(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype} of shape {array.shape}"


def _from_folder(folder: Path) -> Slices:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    # The numbers in names such as PATIENT_2 and PATIENT_10 aren't padded.
    images = sorted((path for path in files if not path.stem.endswith(_MASK)), key=_in_scan_order)
    if not images:
        raise UserError(f"{folder}: holds no images ({', '.join(_SUFFIXES)}); give a folder that does")
    known = {path.with_stem(path.stem.removesuffix(_MASK)) for path in files if path.stem.endswith(_MASK)}
    if unknown := known and [path for path in images if path not in known]:
        raise UserError(
            f"{unknown[0]}: has no mask beside it (NAME{_MASK}), but other images have; add it or remove the others"
        )
    masks = _as_masks([_read(path.with_stem(path.stem + _MASK), "L") for path in images]) if known else None
    pixels = [_read(path, "RGB") for path in images]
    for path, *arrays in zip(images, pixels, *([masks] if masks else []), strict=True):
        if any(array.shape[:2] != pixels[0].shape[:2] for array in arrays):
            raise UserError(f"{path}: it or its mask differs in size from {images[0].name}; give images of one size")
    patients = tuple(path.parent.resolve().name for path in images)
    return Slices(np.stack(pixels), None if masks is None else np.stack(masks), patients)


def _as_masks(greys: list[UInt8[np.ndarray, "_ _"]]) -> list[Bool[np.ndarray, "_ _"]]:
    """Masks are drawn in black and white, or hold 0 and 1, or the numbers of regions."""
    threshold = 127 if max(grey.max() for grey in greys) > 127 else 0
    return [grey > threshold for grey in greys]


def _in_scan_order(path: Path) -> tuple[Path, str, int]:
    name, _, number = path.stem.rpartition("_")
    return (path.parent, name, int(number)) if number.isdecimal() else (path.parent, path.stem, 0)


def _read(path: Path, mode: str) -> UInt8[np.ndarray, "height width *channels"]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise UserError(f"{path}: has Pillow mode {image.mode}; convert it to 8 bits per channel first")
            return np.asarray(shown_upright(image).convert(mode))
    except UserError:
        raise
    except Exception as error:  # A damaged one makes Pillow raise many kinds.
        raise UserError(f"{path}: is not a {', '.join(_FORMATS)} image, or is damaged; remove or replace it") from error
