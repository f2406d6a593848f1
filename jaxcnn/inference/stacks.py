"""Read what is to be segmented, a patient's slices at a time, and write masks of the same size and geometry."""

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxcnn.data.files import FileError, shown, single_file
from jaxcnn.data.readers.dicom import is_dicom, read_series, series_uid
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.table import telling_damage
from jaxcnn.data.slices import group_pictures, read_nifti_volume, read_stack, stem
from jaxcnn.errors import UserError
from jaxcnn.runs.files import numbered, whole_file

_MOST_BYTES = 64_000_000

Masks = UInt8[np.ndarray, "n height width"]


@dataclasses.dataclass(frozen=True)
class Stack:
    """Slices of a patient.

    Attributes:
        name: of the patient, the volume or the series; a name for files as well.
        images: the slices in their order.
        voxel: its size in mm3, or None where that isn't known.
        write: writes masks of the images to a path, which has no ending yet.
        series: what tells a DICOM series from others of its patient, as far as its files say; None of other stacks.
    """

    name: str
    images: UInt8[np.ndarray, "n height width channel"]
    voxel: float | None
    write: Callable[[Path, Masks], None]
    series: str | None = None


def read_stacks(paths: Sequence[Path]) -> list[Stack]:
    """Read NIfTI volumes, DICOM series, TIFFs of several pages, or folders of these or of pictures by patient.

    Files named NAME_mask are left out. Each stack has another name.

    Raises:
        UserError: there is nothing of this kind, a file is damaged, a patient's slices are of several sizes, or two
            inputs that aren't DICOM series have the same name.
    """
    stacks = [stack for path in paths for stack in _read_stacks(path)]
    alike, taken = Counter(stack.name for stack in stacks), set[str]()
    for place, stack in enumerate(stacks):
        first = f"{stack.name}-{stack.series}" if alike[stack.name] > 1 and stack.series else stack.name
        if first in taken and stack.series is None:
            raise UserError(f"{first}: two inputs have this name; rename one, or segment them into different folders")
        name = next(name for name in numbered(first) if name not in taken)
        taken.add(name)
        stacks[place] = dataclasses.replace(stack, name=name)
    return stacks


def _read_stacks(path: Path) -> list[Stack]:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give volumes, series, pictures, or folders of them")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    volumes, pictures = group_pictures(path, files)
    series: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        with _named(file):
            if is_dicom(single_file(file).read(132)):
                series.setdefault((file.parent, series_uid(_content(file))), []).append(file)
    stacks = [
        *map(_of_volume, volumes),
        *(_of_series(path, slices) for slices in series.values()),
        *(_of_pictures(patient, slices) for patient, slices in pictures.items()),
    ]
    if not stacks:
        raise UserError(f"{path}: holds no slices to segment (NIfTI, DICOM, JPEG, PNG, TIFF); give some that do")
    return stacks


def _of_volume(path: Path) -> Stack:
    volume = read_nifti_volume(path, most_channels=4)
    images = np.stack([to_bytes(channel) for channel in np.moveaxis(volume.pictures, -1, 0)], axis=-1)

    def write(target: Path, masks: Masks) -> None:
        with whole_file(target.with_name(f"{target.name}_mask.nii.gz")) as temporary:
            temporary.write_bytes(volume.with_pictures(masks))

    return Stack(stem(path), images, float(np.prod(volume.spacing)), write)


def _of_series(source: Path, files: Sequence[Path]) -> Stack:
    with _named(files[0]):
        found = read_series([_content(file) for file in files])
    # Where there is no such ending, what looks like one may be all that tells files apart.
    names = [files[place].name.removesuffix(".dcm") for place in found.places]
    inside = shown(files[0].parent.relative_to(source)) if files[0].parent != source and source.is_dir() else ""
    name = _as_file_name("-".join(part for part in (inside, found.patient) if part)) or files[0].stem
    voxel = None if found.spacing is None else float(np.prod(found.spacing))
    images = to_bytes(found.pictures)[..., np.newaxis]
    return Stack(name, images, voxel, _picture_writer(names), _as_file_name(found.label))


def _as_file_name(text: str) -> str:
    """What a file says, such as a PatientID, mustn't choose the folder that is written to."""
    return re.sub(r"[^\w.+=-]+", "-", text).strip(".-")


def _of_pictures(patient: str, files: Sequence[Path]) -> Stack:
    stacks = [read_stack(file) for file in files]
    for file, stack in zip(files, stacks, strict=True):
        if stack.shape[1:] != stacks[0].shape[1:]:
            raise UserError(f"{file}: differs in size or channels from {files[0].name}; give slices of one kind")
    names = [
        f"{stem(file)}-{page + 1}" if len(stack) > 1 else stem(file)
        for file, stack in zip(files, stacks, strict=True)
        for page in range(len(stack))
    ]
    return Stack(patient, np.concatenate(stacks), None, _picture_writer(names))


def _picture_writer(names: Sequence[str]) -> Callable[[Path, Masks], None]:
    def write(target: Path, masks: Masks) -> None:
        # Black and white where there is one class, so that a mask can be seen.
        scale = 255 if masks.max(initial=0) <= 1 else 1
        for name, mask in zip(names, masks, strict=True):
            with whole_file(target / f"{name}_mask.png") as temporary:
                Image.fromarray(mask * np.uint8(scale)).save(temporary)

    return write


def _content(file: Path) -> bytes:
    return single_file(file).content(_MOST_BYTES)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Name the file in what is said of it."""
    try:
        with telling_damage("DICOM"):
            yield
    except FileError as error:
        raise UserError(f"{file}: {error}") from error
