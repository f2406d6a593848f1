"""List the files of a folder or a zip without extracting them, and read each one only when it is needed."""

import contextlib
import dataclasses
import functools
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from jaxcnn.errors import UserError, one_line, printable

# What operating systems leave in folders and zips, and the index of a DICOM folder; names that begin with a dot are
# left out too.
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini", "DICOMDIR")


class FileError(ValueError):
    """A file can't be used: the message, of one line, continues a sentence that begins with its name."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file of a folder or a zip, not read yet.

    Attributes:
        path: from the folder, or within the zip, with "/" between the parts.
        size: in bytes, once it is unpacked.
        read: gives its first bytes, so many as are asked for; raises FileError where it can't be read.
    """

    path: PurePosixPath
    size: int
    read: Callable[[int], bytes]

    def content(self, most: int) -> bytes:
        """Read the whole file.

        Raises:
            FileError: it can't be read, or has more than `most` bytes.
        """
        if self.size > most:
            raise FileError(f"is too large: {self.size // 10**6} MB, more than {most // 10**6}")
        return self.read(self.size)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file that is not used; `name` and `reason` make a sentence."""

    name: str
    reason: str


def shown(path: str | PurePosixPath | Path) -> str:
    """Return a path as text that can be printed and written, even where its bytes are not valid text."""
    # Not by `os.fsencode`: the names in a zip are text that the locale may not have.
    return printable(str(path).encode(errors="surrogateescape").decode(errors="backslashreplace"))


@contextlib.contextmanager
def open_files(path: Path) -> Iterator[list[StoredFile]]:
    """List every file of a zip or a folder, sorted by path, except for files that operating systems leave behind.

    Links to other folders are not followed. The files can be read until the block ends.

    Raises:
        UserError: no such file, no zip, a zip entry that would land outside of the folder it is extracted to.
    """
    with contextlib.ExitStack() as stack:
        files = [file for file in _list_files(path, stack) if not _is_junk(file.path)]
        yield sorted(files, key=lambda file: file.path.parts)


def single_file(path: Path) -> StoredFile:
    """A file on its own; one that isn't there tells so when it is read."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return StoredFile(PurePosixPath(path), size, functools.partial(_read_file, path))


def _list_files(path: Path, stack: contextlib.ExitStack) -> list[StoredFile]:
    try:
        if path.is_dir():
            return _files_of_folder(path)
        file = stack.enter_context(path.open("rb"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder; give a folder or a zip of images") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: names in the zip are said to be UTF-8, and aren't; pack the folder again") from error
    except Exception as error:  # A damaged one makes zipfile raise many kinds.
        file.seek(0)
        if file.read(4) == b"PK\x03\x04":
            raise UserError(f"{path}: the zip is truncated or damaged; download it again") from error
        raise UserError(f"{path}: is neither a zip nor a folder; give a folder or a zip of images") from error
    return _files_of_zip(path, archive)


def _files_of_folder(folder: Path) -> list[StoredFile]:
    paths = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=_fail) for name in names]
    return [dataclasses.replace(single_file(path), path=PurePosixPath(path.relative_to(folder))) for path in paths]


def _fail(error: OSError) -> None:
    raise error


def _files_of_zip(path: Path, archive: zipfile.ZipFile) -> list[StoredFile]:
    # A damaged entry may have no name, which `is_dir` doesn't expect.
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    for member in members:
        name = PureWindowsPath(member.filename)  # It knows both separators, and drives.
        if name.anchor or ".." in name.parts:
            raise UserError(f"{path}: the entry {member.filename!r} points outside the zip; don't trust this file")
    return [
        StoredFile(PurePosixPath(member.filename), member.file_size, functools.partial(_read_member, archive, member))
        for member in members
    ]


def _read_file(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise FileError(f"can't be read ({error.strerror or error})") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, count: int) -> bytes:
    try:
        with archive.open(member) as file:
            return file.read(count)
    # A wrong checksum, a damaged stream of any compression, an end too early, encryption, a version that is unknown.
    except Exception as error:
        raise FileError(f"is damaged in the zip ({error})") from error


def _is_junk(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part in _JUNK for part in path.parts)
