"""The Kaggle archive: as the zip, as its extracted folder, or as anything that holds Training/ and Testing/.

Nothing is extracted. The listing is checked as a whole before the first image is read.
"""

import contextlib
import dataclasses
import functools
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from jaxcnn.data.dataset import CLASSES, SplitName
from jaxcnn.errors import UserError

SPLIT_FOLDERS: Mapping[str, SplitName] = {"Training": "train", "Testing": "test"}
# A slice is some 30 kB; what is larger than this is no slice, and is not read into memory.
MAX_FILE_BYTES = 64_000_000
# What operating systems leave in folders and zips; names that begin with a dot are left out too.
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")

_Read = Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Scan:
    """An image file of the archive, not read yet.

    Attributes:
        split: "train" for the folder Training, "test" for Testing.
        label: place of the class folder in `CLASSES`.
        name: path from the folder that holds Training/ and Testing/: "Training/glioma_tumor/gg (1).jpg".
        read: gives the bytes of the file; raises ValueError, whose message continues a sentence that begins with the
            file's name, where it can't be read.
    """

    split: SplitName
    label: int
    name: str
    read: _Read


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[list[Scan]]:
    """List the images of the archive: Training before Testing, then by class, then by name.

    Args:
        path: the zip, or a folder, in which links to other folders are not followed. Training/ and Testing/ may lie at
            any depth in it. The scans can be read until the block ends.

    Raises:
        UserError: no such file, no zip, a split or class folder missing or unknown, a zip entry that would land outside
            of the folder it is extracted to.
    """
    with open_files(path) as files:
        yield _scans(path, files)


@contextlib.contextmanager
def open_files(path: Path) -> Iterator[dict[PurePosixPath, _Read]]:
    """Every file of a zip or a folder, except for what operating systems leave behind; see `Scan` for how to read it.

    Raises:
        UserError: no such file, no zip, a zip entry that would land outside of the folder it is extracted to.
    """
    with contextlib.ExitStack() as stack:
        files = _list_files(path, stack)
        yield {PurePosixPath(name): read for name, read in files.items() if not _is_junk(name)}


def _list_files(path: Path, stack: contextlib.ExitStack) -> dict[str, _Read]:
    """Every file of the archive by its path in there, with "/" between the parts; `stack` closes the zip."""
    try:
        if path.is_dir():
            return _files_of_folder(path)
        return _files_of_zip(path, stack.enter_context(zipfile.ZipFile(path)))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder; give the Kaggle archive or its extracted folder") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: {_why_no_zip(path)}") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from error


def _why_no_zip(path: Path) -> str:
    with path.open("rb") as file:
        begins_as_zip = file.read(4) == b"PK\x03\x04"
    if begins_as_zip:
        return "the zip is truncated or damaged; download it again"
    return "is neither a zip nor a folder; give the Kaggle archive or its extracted folder"


def _files_of_folder(folder: Path) -> dict[str, _Read]:
    paths = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=_fail) for name in names]
    return {path.relative_to(folder).as_posix(): functools.partial(read_file, path) for path in paths}


def _fail(error: OSError) -> None:
    raise error


def _files_of_zip(path: Path, archive: zipfile.ZipFile) -> dict[str, _Read]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        if _leaves_its_folder(member.filename):
            raise UserError(f"{path}: the entry {member.filename!r} leads out of the zip; don't trust this file")
    return {member.filename: functools.partial(_read_member, archive, member) for member in members}


def _leaves_its_folder(name: str) -> bool:
    path = PureWindowsPath(name)  # It knows both separators, and drives.
    return bool(path.anchor) or ".." in path.parts


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ValueError: it can't be read, or is too large for an image; see `Scan`.
    """
    try:
        _check_file_size(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror or error})") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    _check_file_size(member.file_size)
    try:
        return archive.read(member)
    # A wrong checksum, a damaged stream, an end too early; RuntimeError: encrypted, or an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"is damaged in the zip ({error})") from error


def _check_file_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(f"is too large: {size // 10**6} MB, more than {MAX_FILE_BYTES // 10**6}")


def _scans(path: Path, files: Mapping[PurePosixPath, _Read]) -> list[Scan]:
    """Arrange the files by split and class; see `open_archive`."""
    root = _find_root(path, files)
    below = {name.relative_to(root): read for name, read in files.items() if name.is_relative_to(root)}
    images = {name: read for name, read in below.items() if name.parts[0] in SPLIT_FOLDERS}
    _check_folders(path, images)
    scans = [
        Scan(SPLIT_FOLDERS[name.parts[0]], CLASSES.index(name.parts[1]), name.as_posix(), read)
        for name, read in images.items()
    ]
    return sorted(scans, key=lambda scan: (scan.split == "test", scan.label, scan.name))


def _is_junk(name: str) -> bool:
    return any(part.startswith(".") or part in _JUNK for part in name.split("/"))


def _find_root(path: Path, names: Collection[PurePosixPath]) -> PurePosixPath:
    """The folder that holds Training/ and Testing/."""
    roots = {folder.parent for name in names for folder in name.parents if folder.name in SPLIT_FOLDERS}
    if not roots:
        raise UserError(
            f"{path}: holds no files in folders Training/ and Testing/; give the Kaggle archive or its extracted folder"
        )
    if len(roots) > 1:
        listed = ", ".join(sorted(map(str, roots)))
        raise UserError(f"{path}: several folders hold Training/ or Testing/ ({listed}); keep one of them")
    return roots.pop()


def _check_folders(path: Path, names: Collection[PurePosixPath]) -> None:
    """Each split must hold the four classes and nothing else."""
    needed = [PurePosixPath(split, label) for split in SPLIT_FOLDERS for label in CLASSES]
    for name in sorted(names):
        if name.parent not in needed:
            raise UserError(
                f"{path}: {name} is in none of the class folders {', '.join(CLASSES)}; rename its folder or remove it"
            )
    filled = {folder for name in names for folder in name.parents}
    for folder in [*map(PurePosixPath, SPLIT_FOLDERS), *needed]:
        if folder not in filled:
            raise UserError(f"{path}: the folder {folder}/ is missing or empty; both splits need all four classes")
