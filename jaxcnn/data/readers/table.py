"""The table of image formats, which also decides whether a file is an image file.

A file is an image file if its name ends as one of the table says, in any case, or if it begins as a DICOM file does,
whose names often have no ending. A new format is one file beside this one and one line here.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from jaxcnn.data.files import FileError, LeftOut, StoredFile, shown
from jaxcnn.data.readers.dicom import is_dicom, read_dicom
from jaxcnn.data.readers.matlab import read_matlab
from jaxcnn.data.readers.nifti import read_nifti
from jaxcnn.data.readers.pictures import read_picture
from jaxcnn.data.readers.scan import Scan
from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class Reader:
    """How files of a format are known and read.

    Attributes:
        suffixes: what the names of its files end with, in lower case.
        read: gives what a file holds, from its bytes; raises FileError, or anything else where the file is damaged.
        most_bytes: files that are larger are not read into memory; a slice is some 30 kB.
        labels: whether its files hold their class themselves.
        volumes: whether a file may hold many slices.
    """

    format: str
    suffixes: tuple[str, ...]
    read: Callable[[bytes], Scan]
    most_bytes: int = 64_000_000
    labels: bool = False
    volumes: bool = False


_DICOM = Reader("DICOM", (".dcm", ".dicom", ".ima"), read_dicom, most_bytes=1_000_000_000, volumes=True)
READERS = (
    Reader("JPEG", (".jpg", ".jpeg", ".jfif"), read_picture),
    Reader("PNG", (".png",), read_picture),
    Reader("TIFF", (".tif", ".tiff"), read_picture, volumes=True),
    Reader("BMP", (".bmp",), read_picture),
    Reader("WebP", (".webp",), read_picture),
    _DICOM,
    Reader("NIfTI", (".nii", ".nii.gz"), read_nifti, most_bytes=1_000_000_000, volumes=True),
    Reader("MATLAB", (".mat",), read_matlab, labels=True),
)
FORMATS = ", ".join(reader.format for reader in READERS)
NO_IMAGE = f"is not an image file ({FORMATS})"


def find_reader(file: StoredFile) -> Reader | None:
    """Find the reader of a file's format; None if it is not an image file."""
    name = file.path.name.lower()
    for reader in READERS:
        if name.endswith(reader.suffixes):
            return reader
    try:
        return _DICOM if is_dicom(file.read(132)) else None
    except FileError:
        return None


def image_files(files: Sequence[StoredFile]) -> tuple[list[tuple[StoredFile, Reader]], list[LeftOut]]:
    """The image files among the files of a folder or a zip, with their readers, and the others.

    Two kinds of files are left out, too, that are images by their names alone: NAME_mask beside NAME, the outline of a
    tumour; and cvind.mat, which says in which fold each image of the set on Figshare is.
    """
    images, left_out = [], []
    paths = {file.path for file in files}
    for file in files:
        reader = find_reader(file)
        reason = NO_IMAGE if reader is None else _why_beside(file.path, paths)
        if reader is None or reason:
            left_out.append(LeftOut(shown(file.path), reason))
        else:
            images.append((file, reader))
    return images, left_out


def _why_beside(path: PurePosixPath, paths: set[PurePosixPath]) -> str:
    if path.stem.endswith("_mask") and path.with_stem(path.stem.removesuffix("_mask")) in paths:
        return "is the mask of the image beside it"
    return "is a list of folds, not an image" if path.name == "cvind.mat" else ""


def read_scan(encoded: bytes, reader: Reader) -> Scan:
    """Read a file with this content.

    Raises:
        FileError: it is no good.
        UserError: its format needs a package that is not installed.
    """
    if not encoded:
        raise FileError("is empty")
    with telling_damage(reader.format):
        return reader.read(encoded)


@contextlib.contextmanager
def telling_damage(kind: str) -> Iterator[None]:
    """Raise FileError for whatever a damaged file of this format makes its package raise."""
    try:
        # Numbers that overflow would be seen as black or white.
        with np.errstate(over="raise", invalid="raise"):
            yield
    except (FileError, UserError):
        raise
    except Exception as error:  # The packages that read damaged files raise many kinds.
        raise FileError(f"is not a {kind} file, or is damaged ({error})") from error
