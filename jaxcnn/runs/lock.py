"""Lock a run folder, so that only one process at a time works on it.

The lock is the kernel's, on a file that stays in the folder. It ends with the process that holds it, however that ends,
so that no stale lock can keep anyone out.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from jaxcnn.errors import UserError
from jaxcnn.runs.files import try_lock
from jaxcnn.runs.folder import Run, check_run_folder


class InUseError(UserError):
    """Another process works on the folder."""


@contextlib.contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Lock a run folder, which is made if it is missing; without locks in the file system this does nothing.

    Raises:
        InUseError: another process holds it.
        UserError: it is no run folder, or it can't be written.
    """
    check_run_folder(run)
    with lock_file(run.lock):
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process works on this run or sweep, as far as the file system has locks."""
    try:
        handle = os.open(Run(folder).lock, os.O_RDWR)
    except OSError:
        return False
    try:
        return try_lock(handle) is False
    finally:
        os.close(handle)


@contextlib.contextmanager
def lock_file(lock: Path, *, waits: int | None = None) -> Iterator[int]:
    """Lock a folder by a file in it; both are made if they are missing.

    Args:
        waits: What to wait for where others hold it: `fcntl.LOCK_EX`, to have it alone, or `fcntl.LOCK_SH`, to share it
            with others that do. None is not to wait.

    Yields:
        The open file.

    Raises:
        InUseError: another process holds it, and this one doesn't wait.
        UserError: it can't be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"{lock.parent}: {error.strerror}; choose a folder that can be written") from error
    try:
        if try_lock(handle) is False and (waits is None or not try_lock(handle, waits)):
            holder = os.pread(handle, 1000, 0).decode(errors="replace") or "another process"
            way_out = "wait until it ends, stop it, or choose another folder"
            raise InUseError(f"{lock.parent}: in use by {holder}; {way_out}")
        # Who holds it is for people; where the disk is full, the lock holds all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield handle
    finally:
        os.close(handle)
