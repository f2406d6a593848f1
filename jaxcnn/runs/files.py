"""Files and folders that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the address of a temporary neighbour to write to; when the block ends well it takes the place of `path`.

    That holds for a power cut, too: what is on the disk then is the older file or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: writers such as Matplotlib and NumPy choose the format by it.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
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


def _bring_to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, would outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(target: Path, written: Path, *, replaced: Path) -> None:
    """Put the finished folder `written` where `target` is; an older target goes to `replaced`.

    All three must lie on one file system, where renaming is all there is to do. Where that fails or is interrupted, the
    older target comes back to its place. Only a kill between the two renames leaves it in `replaced`.
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
