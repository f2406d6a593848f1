"""Read slices to segment, from one or more patients, with or without masks that were drawn by hand."""

import dataclasses
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8
from PIL import Image, ImageSequence

from jaxcnn.data.files import FileError, shown, single_file
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.nifti import MOST_BYTES, Volume, read_volume
from jaxcnn.data.readers.pictures import shown_upright
from jaxcnn.data.readers.table import telling_damage
from jaxcnn.errors import UserError

# Pillow knows dozens of formats; some of them start other programs.
_FORMATS = ("JPEG", "PNG", "TIFF")
_PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_VOLUMES = (".nii", ".nii.gz")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_GREY_MODES = ("1", "L", "LA")
_MASK = "_mask"
_MOST_CHANNELS = 4

BINARY = ("background", "tumor")
# Masks of more levels hold no numbers of regions, but grey edges.
_MOST_CLASSES = 16
_NEARLY = 32
_EQUAL = 8


@dataclasses.dataclass(frozen=True)
class Slices:
    """Slices of equal size, in the order of the file, or of the numbers in the files' names.

    Attributes:
        images: 8 bits a channel; in the LGG data the channels are MRI sequences: before contrast, FLAIR, after.
        masks: the class of each pixel, or None if that isn't known.
        patients: the one of each slice.
        names: of the slices.
        classes: names of the classes in the masks, the background first.
    """

    images: UInt8[np.ndarray, "n height width channel"]
    masks: UInt8[np.ndarray, "n height width"] | None
    patients: tuple[str, ...]
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = BINARY

    @property
    def patient_names(self) -> tuple[str, ...]:
        """Each patient once."""
        return tuple(dict.fromkeys(self.patients))

    @property
    def marked(self) -> Bool[np.ndarray, "n height width"] | None:
        """Where there is anything but background, or None if that isn't known."""
        return None if self.masks is None else self.masks > 0

    def places(self, patient: str) -> Int[np.ndarray, " k"]:
        """Where the patient's slices are."""
        return np.flatnonzero(np.array(self.patients) == patient)


def with_channels(
    images: UInt8[np.ndarray, "n height width channel"], count: int
) -> UInt8[np.ndarray, "n height width {count}"]:
    """The images for a network that takes so many channels: grey is repeated, and equal channels become grey.

    Raises:
        ValueError: they have another number of channels.
    """
    channels = images.shape[3]
    # JPEG lets equal channels differ by a few levels.
    if count == 1 and channels == 3 and np.ptp(images.astype(np.int16), axis=3).max(initial=0) <= _EQUAL:
        return images[..., :1]
    if channels not in (1, count):
        raise ValueError(f"has images of {channels} channels, and the network takes {count}")
    return images if channels == count else np.repeat(images, count, axis=3)


def load_slices(source: Path) -> Slices:
    """Read an NPZ file or a folder.

    An NPZ file holds `images`, uint8 of shape (n, height, width, 1 to 4 channels), and may hold `masks` of shape
    (n, height, width), `patients`, n names, and `slices`, n numbers. A folder holds image files, in folders named after
    the patients, as the public LGG data (mateuszbuda/lgg-mri-segmentation) comes; the mask of NAME.tif is NAME_mask.tif
    beside it. Or it holds NIfTI volumes, each of a patient, with the mask of NAME.nii.gz in NAME_mask.nii.gz; a series
    of up to four volumes gives channels. `number_classes` says what masks may hold.

    Raises:
        UserError: there is nothing there, or it is none of these, or a mask doesn't fit its image.
    """
    if source.is_dir():
        return _from_folder(source)
    if source.is_file():
        return _from_npz(source)
    raise UserError(f"{source}: no such file or folder; give an NPZ file or a folder of images")


def number_classes(
    masks: Sequence[Shaped[np.ndarray, "_ _ _"]], names: Sequence[str]
) -> tuple[list[UInt8[np.ndarray, "_ _ _"]], tuple[str, ...]]:
    """Number the classes in masks from 0, the background, and name them.

    Masks of two levels (booleans, 0 and 1, 0 and 255) have one class. So have those that are black and white but for
    grey edges or traces of JPEG: above half is white. Of whole numbers, at most 16 beside 0, each is a class.

    Args:
        masks: stacks of slices.
        names: what to call each stack in a message.

    Raises:
        UserError: they hold something else, or numbers that can't be told from black and white.
    """
    found = [np.unique(mask) for mask in masks]
    levels = np.unique(np.concatenate(found))
    most, bright = levels[-1], levels > 255 - _NEARLY
    if most > 127 and most <= 255 and (len(levels) > _MOST_CLASSES + 1 or ((levels < _NEARLY) | bright).all()):
        dark = [name for name, own in zip(names, found, strict=True) if 0 < own[-1] < _NEARLY]
        # Some programs mark what doesn't count by 255.
        if dark or levels.tolist() == [0, 1, 255]:
            raise UserError(
                f"{dark[0] if dark else names[0]}: its mask has 1 and other masks or pixels have 255; save"
                " all as 0 and 255"
            )
        return [(mask > 127).astype(np.uint8) for mask in masks], BINARY
    for name, own in zip(names, found, strict=True):
        if own[0] < 0 or not np.array_equal(own, np.round(own)):
            raise UserError(f"{name}: its mask holds {own[0]:g} to {own[-1]:g}, which are no numbers of classes")
        if len(levels) > _MOST_CLASSES + 1:
            raise UserError(
                f"{name}: its mask and others hold {len(levels)} levels up to {most}, more than {_MOST_CLASSES};"
                " save them as black and white"
            )
    values = levels[levels > 0]
    # A mask that is nowhere 0 has no background.
    numbered = [((mask > 0) * (1 + np.searchsorted(values, mask))).astype(np.uint8) for mask in masks]
    return numbered, BINARY if len(values) < 2 else (BINARY[0], *(f"{value:g}" for value in values))


def _from_npz(path: Path) -> Slices:
    try:
        # Opened here, since NumPy leaves a file open that turns out to be damaged.
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # NumPy would read other files, too.
                raise ValueError("no zip")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                content = {name: arrays[name] for name in ("images", "masks", "patients", "slices") if name in arrays}
    except Exception as error:  # A damaged one makes NumPy and zipfile raise many kinds.
        raise UserError(f"{path}: is not an NPZ file of plain arrays; give one that numpy.savez wrote") from error
    images, masks = content.get("images"), content.get("masks")
    most = _MOST_CHANNELS
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] > most or not images.size:
        raise UserError(
            f"{path}: `images` must be uint8 of shape (n, height, width, 1 to {most}), and is {_describe(images)}"
        )
    if masks is not None and (masks.dtype.kind not in "buif" or masks.shape != images.shape[:3]):
        raise UserError(f"{path}: `masks` must be numbers of shape {images.shape[:3]}, and is {_describe(masks)}")
    patients = content.get("patients", np.full(len(images), path.stem))
    slices = content.get("slices", np.arange(1, len(images) + 1))
    for name, array in (("patients", patients), ("slices", slices)):
        if array.shape != images.shape[:1]:
            raise UserError(f"{path}: `{name}` must be {len(images)} names, and is {_describe(array)}")
    names = tuple(f"{patient}/{number}" for patient, number in zip(patients, slices, strict=True))
    numbered, classes = ([None], BINARY) if masks is None else number_classes([masks], [str(path)])
    return Slices(images, numbered[0], tuple(map(str, patients)), names, classes)


def _describe(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype} of shape {array.shape}"


def group_pictures(folder: Path, files: Sequence[Path]) -> tuple[list[Path], dict[str, list[Path]]]:
    """The NIfTI volumes among the files, and the pictures of each patient in their order, without masks.

    Of several folders with one name each is a patient, whose name has the folders above it.
    """
    images = sorted((path for path in files if _suffix(path) and not stem(path).endswith(_MASK)), key=_in_scan_order)
    patients = {path: _patient(folder, path) for path in images if not is_volume(path)}
    folders = Counter(name for _, name in {(path.parent, name) for path, name in patients.items()})
    of_patients: dict[str, list[Path]] = {}
    for path, name in patients.items():
        above = path.parent.relative_to(folder).parts[:-1] if folders[name] > 1 else ()
        of_patients.setdefault("-".join((*above, name)), []).append(path)
    return [path for path in images if is_volume(path)], of_patients


def _from_folder(folder: Path) -> Slices:
    files = sorted(path for path in folder.rglob("*") if _suffix(path) and path.is_file())
    masks = {path.parent / stem(path).removesuffix(_MASK): path for path in files if stem(path).endswith(_MASK)}
    # The numbers in names such as PATIENT_2 and PATIENT_10 aren't padded.
    images = sorted((path for path in files if not stem(path).endswith(_MASK)), key=_in_scan_order)
    if not images:
        raise UserError(f"{folder}: holds no images ({', '.join(_PICTURES + _VOLUMES)}); give a folder that does")
    pairs = [(path, masks.pop(path.parent / stem(path), None)) for path in images]
    if masks:
        raise UserError(f"{next(iter(masks.values()))}: is the mask of no image; add the image or remove the mask")
    drawn = [path for path, mask in pairs if mask]
    if drawn and len(drawn) < len(pairs):
        unknown = next(path for path, mask in pairs if not mask)
        raise UserError(
            f"{unknown}: has no mask beside it (NAME{_MASK}), but other images have; add it or remove the others"
        )
    for path, other in [*((path, mask) for path, mask in pairs if mask), *((path, images[0]) for path in images)]:
        if is_volume(path) != is_volume(other):
            raise UserError(f"{other}: and {path.name} are a volume and a picture; save both alike")
    stacks = [read_stack(path) for path in images]
    for path, stack in zip(images, stacks, strict=True):
        if stack.shape[1:3] != stacks[0].shape[1:3]:
            raise UserError(f"{path}: it differs in size from {images[0].name}; give images of one size")
    channels = max(stack.shape[3] for stack in stacks)
    if unfit := next((path for path, s in zip(images, stacks, strict=True) if s.shape[3] not in (1, channels)), None):
        raise UserError(f"{unfit}: it has fewer channels than others, which have {channels}; give images of one kind")
    pixels = np.concatenate([with_channels(stack, channels) for stack in stacks])
    read = [_read_mask(path, mask, stack) for (path, mask), stack in zip(pairs, stacks, strict=True) if mask]
    numbered, classes = number_classes(read, [str(path) for path in drawn]) if read else ([], BINARY)
    patients, names = [], []
    for path, stack in zip(images, stacks, strict=True):
        patients += [_patient(folder, path)] * len(stack)
        name = shown(path.relative_to(folder))
        names += [name] if len(stack) == 1 else [f"{name}#{number + 1}" for number in range(len(stack))]
    return Slices(pixels, np.concatenate(numbered) if read else None, tuple(patients), tuple(names), classes)


def _suffix(path: Path) -> str:
    return next((suffix for suffix in (*_PICTURES, *_VOLUMES[::-1]) if path.name.lower().endswith(suffix)), "")


def stem(path: Path) -> str:
    """The name of a file without its ending, which may be .nii.gz."""
    return path.name[: -len(_suffix(path))]


def is_volume(path: Path) -> bool:
    """Whether it is a NIfTI volume, by its name."""
    return _suffix(path) in _VOLUMES


def _patient(folder: Path, path: Path) -> str:
    """The name of its folder, or where all lie in one folder that of the file without the number at its end."""
    if is_volume(path) or path == folder:
        return stem(path)
    if path.parent != folder:
        return path.parent.name
    name, _, number = stem(path).rpartition("_")
    return name if name and number.isdecimal() else folder.resolve().name


def _in_scan_order(path: Path) -> tuple[Path, str, int]:
    name, _, number = stem(path).rpartition("_")
    return (path.parent, name, int(number)) if number.isdecimal() else (path.parent, stem(path), 0)


def read_stack(path: Path) -> UInt8[np.ndarray, "n height width channel"]:
    """Read a volume, a picture, or a TIFF of several pages.

    Raises:
        UserError: it is none, or is damaged.
    """
    if is_volume(path):
        pictures = read_nifti_volume(path, _MOST_CHANNELS).pictures
        return np.stack([to_bytes(pictures[..., channel]) for channel in range(pictures.shape[3])], axis=-1)
    pages = _read_pages(path)
    # Grey pictures have no axis of channels.
    return pages if pages.ndim == 4 else pages[..., np.newaxis]


def _read_mask(image: Path, mask: Path, stack: np.ndarray) -> Shaped[np.ndarray, "n height width"]:
    if is_volume(mask):
        pictures = read_nifti_volume(mask, axis=read_nifti_volume(image, _MOST_CHANNELS).axis).pictures[..., 0]
    else:
        pictures = _read_pages(mask, "L")
    if pictures.shape != stack.shape[:3]:
        shapes = (shape if is_volume(mask) else shape[1:] for shape in (stack.shape[:3], pictures.shape))
        theirs, ours = ("x".join(map(str, shape[::-1])) for shape in shapes)
        raise UserError(f"{mask}: differs in size from {image.name} ({ours}, not {theirs}); give a mask of its size")
    return pictures


def read_nifti_volume(path: Path, most_channels: int = 1, axis: int | None = None) -> Volume:
    """Read a NIfTI file; see `jaxcnn.data.readers.nifti.read_volume`.

    Raises:
        UserError: it can't be read, is damaged, or nibabel is missing.
    """
    try:
        with telling_damage("NIfTI"):
            return read_volume(single_file(path).content(MOST_BYTES), most_channels, axis)
    except FileError as error:
        raise UserError(f"{path}: {error}") from error


def _read_pages(path: Path, mode: str | None = None) -> UInt8[np.ndarray, "pages height width *channels"]:
    """The pages of a picture in a mode of Pillow's; grey where it is, else red, green and blue, if none is given."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return np.stack([_pixels(path, page, mode) for page in ImageSequence.Iterator(image)])
    except UserError:
        raise
    except Exception as error:  # A damaged one makes Pillow raise many kinds.
        raise UserError(f"{path}: is not a {', '.join(_FORMATS)} image, or is damaged; remove or replace it") from error


def _pixels(path: Path, page: Image.Image, mode: str | None) -> UInt8[np.ndarray, "height width *channels"]:
    if page.mode not in _EIGHT_BIT_MODES:
        raise UserError(f"{path}: has Pillow mode {page.mode}; convert it to 8 bits per channel first")
    # The numbers of a palette are those of the regions, whatever colours they are shown in.
    if mode and page.mode == "P":
        return np.asarray(page)
    return np.asarray(shown_upright(page).convert(mode or ("L" if page.mode in _GREY_MODES else "RGB")))
