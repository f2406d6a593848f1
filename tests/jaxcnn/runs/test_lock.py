"""One process at a time works on a run folder."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run
from jaxcnn.runs.lock import lock_run


def test_the_second_is_told_who_is_the_first(tmp_path):
    run = Run(tmp_path / "run")
    with lock_run(run), pytest.raises(UserError, match=f"in use by process {os.getpid()} on"), lock_run(run):
        pass


def test_what_an_earlier_process_left_keeps_nobody_out(tmp_path):
    run = Run(tmp_path / "run")
    for _ in range(2):
        with lock_run(run):
            assert run.lock.read_text("utf-8").startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("number", [524, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.EBADF])
def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch, number):
    """Each says it in another way; 524 is the kernel's own, which the C library has no name for."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with lock_run(Run(tmp_path / "run")), lock_run(Run(tmp_path / "run")):
        pass


def test_a_folder_that_is_no_run_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not a run folder"), lock_run(Run(tmp_path)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_can_not_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory; choose a folder that can be written"):
        lock_run(Run(tmp_path / "file" / "run")).__enter__()


@pytest.fixture
def read_only():
    """A run folder that this process may read and not write; root gives up its rights for the time."""
    with tempfile.TemporaryDirectory() as folder:
        user, run = os.geteuid(), Run(Path(folder) / "run")
        with lock_run(run):
            for path in (run.config, run.data, run.environment):
                path.touch()
        run.lock.chmod(0o444)
        for path, mode in ((run.folder, 0o555), (run.folder.parent, 0o755)):
            path.chmod(mode)
        if user == 0:
            os.seteuid(65534)
        yield run
        os.seteuid(user)
        run.folder.chmod(0o755)


def test_a_folder_that_can_not_be_written_is_refused(read_only):
    with pytest.raises(UserError, match=f"{read_only.folder}: Permission denied; choose a folder that can be written"):
        lock_run(read_only).__enter__()
