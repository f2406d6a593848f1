"""Write files and folders completely or not at all."""

import contextlib
import csv
import fcntl
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.errors import UserError

_TEMPORARY = re.compile(r"\..+\.jaxcnn-tmp-[0-9a-f]{8}(\.[^.]+)?")


def is_temporary(name: str) -> bool:
    """Tell whether a file or folder with this name is a temporary one of this module."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` to write to; it replaces `path` when the block ends without an error.

    That holds for a power cut, too: what is on the disk then is the older file or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: writers such as Matplotlib and NumPy choose the format by it.
    temporary = path.with_name(f".{path.stem}.jaxcnn-tmp-{secrets.token_hex(4)}{path.suffix}")
    # Not by `tempfile`, whose files are for their owner alone: this one gets the rights of any new file.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        _bring_to_disk(temporary)
        temporary.replace(path)
        # Not every file system can do this with a folder.
        with contextlib.suppress(OSError):
            _bring_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def numbered(name: str) -> Iterator[str]:
    """NAME, NAME-2, NAME-3 and so on, to take the first that is free."""
    yield name
    for number in itertools.count(2):
        yield f"{name}-{number}"


@contextlib.contextmanager
def telling_unwritable(what: object, way_out: str) -> Iterator[None]:
    """Report in one line that `what`, a file or an option, can't be written.

    Raises:
        UserError: in the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: can't be written: {error.strerror or error}; {way_out}") from error


def write_csv(path: Path, lines: Iterable[Sequence[Any]]) -> None:
    """Write lines as CSV, all of them or no file.

    Raises:
        UserError: the file can't be written.
    """
    # What in a file's name is no text is shown as its bytes.
    with (
        telling_unwritable(path, "choose another file"),
        whole_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(lines)


def _bring_to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, would outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def temporary_neighbour(target: Path) -> Iterator[Path]:
    """Make an empty folder beside `target` until the block ends; `replace_folder` moves it to `target`.

    What killed processes have left of such folders goes first, by `clear_leftovers`.
    """
    clear_leftovers(target)
    with held_folder(temporary_folder_name(target, secrets.randbits(32))) as folder:
        yield folder


def temporary_folder_name(target: Path, number: int) -> Path:
    """The neighbour of `target` with this number, below 2**32."""
    return target.with_name(f".{target.name}.jaxcnn-tmp-{number:08x}")


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that goes when the block ends, and lock it: `clear_leftovers` leaves it alone meanwhile."""
    while (handle := _make_and_lock(folder)) is None:
        pass
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(handle)


def _make_and_lock(folder: Path) -> int | None:
    """The open folder; None where another process has taken it for a leftover before it was locked."""
    folder.mkdir(exist_ok=True)
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if try_lock(handle) is not False and folder.exists():
        return handle
    os.close(handle)
    return None


def replace_folder(target: Path, written: Path, *, replaced: Path) -> None:
    """Move the finished folder `written` to `target`; an older target moves to `replaced`.

    All three must lie on one file system, where renaming is all there is to do. Where that fails or is interrupted, the
    older target comes back to its place. Only a kill between the two renames leaves it in `replaced`, which
    `clear_leftovers` then puts back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if target.exists():
            target.rename(replaced)
        written.rename(target)
    except BaseException:
        # The callers delete `replaced` with all that is temporary.
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise


def clear_leftovers(target: Path) -> None:
    """Remove what killed processes left of `temporary_neighbour(target)`, but nothing that a process still holds.

    If a kill came after the older target was moved out of the way and before the new one came, it is put back.
    """
    start = f".{target.name}.jaxcnn-tmp-"
    for folder in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
        if not (folder.name.startswith(start) and is_temporary(folder.name) and folder.is_dir()):
            continue
        handle = os.open(folder, os.O_RDONLY)
        try:
            if try_lock(handle):
                if not target.exists() and (replaced := folder / "replaced").exists():
                    replaced.rename(target)
                shutil.rmtree(folder)
        finally:
            os.close(handle)


def try_lock(handle: int, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool | None:
    """Lock an open file or folder for this process, until it is closed or the process ends.

    Args:
        how: of `fcntl.flock`; by default for this process alone, without waiting for another one.

    Returns:
        Whether that is done; False if another process has locked it, None where the file system has no locks.
    """
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError:  # Network file systems say so in many ways.
        return None
    return True
