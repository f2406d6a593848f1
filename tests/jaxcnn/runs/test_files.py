"""Files and folders appear whole, with the rights of any other, and what they replace is never lost."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcnn.errors import UserError
from jaxcnn.runs.files import is_temporary, replace_folder, temporary_neighbour, whole_file, write_csv


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_rights_that_the_umask_leaves_it(tmp_path, mask):
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / "scores.csv") as temporary:
            temporary.touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "scores.csv").stat().st_mode) == 0o666 & ~mask


def test_the_process_s_umask_is_left_alone(tmp_path, monkeypatch):
    """For a moment it would hold for the files that other threads make."""
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask was touched"))
    with whole_file(tmp_path / "scores.csv") as temporary:
        temporary.touch()


def test_the_temporary_file_has_a_name_by_which_leftovers_are_known(tmp_path):
    """And the suffix of the file, by which writers choose the format; each time another."""
    names = set()
    for _ in range(20):
        with whole_file(tmp_path / "scores.tar.gz") as temporary:
            assert temporary.parent == tmp_path
            names.add(temporary.name)
    assert len(names) == 20
    assert all(is_temporary(name) and name.endswith(".gz") for name in names)


@pytest.mark.parametrize(
    "name",
    [".my-notes.md", ".git", ".lock", "scores.csv", ".best-a1b2c3d4", "a.jaxcnn-tmp-a1b2c3d4", ".jaxcnn-tmp-a1b2c3d4"],
)
def test_no_name_of_a_user_s_is_taken_for_one(name):
    assert not is_temporary(name)


@pytest.fixture
def synced(tmp_path, monkeypatch):
    """For each file or folder that is brought to the disk, in order: where it was, and what it held."""
    seen = []

    def fsync(handle):
        here = (tmp_path, *tmp_path.iterdir())
        path = next(path for path in here if os.path.samestat(path.stat(), os.fstat(handle)))
        seen.append((path, sorted(path.iterdir()) if path.is_dir() else path.read_text("utf-8")))

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_the_content_is_on_the_disk_before_it_has_its_name_and_the_name_after_that(tmp_path, synced):
    """A file system may bring the name to the disk first: after a power cut it would be that of an empty file."""
    target = tmp_path / "scores.csv"
    target.write_text("old")
    with whole_file(target) as temporary:
        temporary.write_text("new")
        assert synced == []
    assert synced == [(temporary, "new"), (tmp_path, [target])]


def test_a_disk_that_fails_leaves_the_older_file(tmp_path, monkeypatch):
    def fsync(_):
        raise OSError("Input/output error")

    target = tmp_path / "scores.csv"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"), whole_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path, monkeypatch):
    whole = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError("Invalid argument")
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with whole_file(tmp_path / "scores.csv") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "scores.csv").read_text("utf-8") == "new"


@pytest.fixture
def folders(tmp_path):
    """Arguments of `replace_folder`: the target, the new folder, and where the older one goes."""
    target, written, replaced = tmp_path / "target", tmp_path / "new", tmp_path / "replaced"
    for folder, content in ((target, "old"), (written, "new")):
        folder.mkdir()
        (folder / "file").write_text(content)
    return target, written, replaced


def test_a_folder_takes_the_place_of_an_older_one_or_of_none(folders, tmp_path):
    target, written, replaced = folders
    replace_folder(target, written, replaced=replaced)
    assert (target / "file").read_text("utf-8") == "new"
    assert (replaced / "file").read_text("utf-8") == "old"
    replace_folder(tmp_path / "more" / "elsewhere", target, replaced=tmp_path / "unused")
    assert (tmp_path / "more" / "elsewhere" / "file").read_text("utf-8") == "new"
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("error", [OSError("Input/output error"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("renamed", [0, 1, 2], ids="after {} renames".format)
def test_whatever_goes_wrong_there_is_a_folder_in_the_place(folders, monkeypatch, error, renamed):
    """The callers delete the other two in the end."""
    target, written, replaced = folders
    rename, renames = Path.rename, []

    def failing_rename(path, new):
        if len(renames) == renamed:
            renames.append(new)
            raise error
        result = rename(path, new)
        renames.append(new)
        # Ctrl-C may come after the last one, too.
        if len(renames) == renamed == 2:
            raise error
        return result

    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(type(error)):
        replace_folder(target, written, replaced=replaced)
    assert (target / "file").read_text("utf-8") == ("new" if renamed == 2 else "old")


def test_a_temporary_folder_goes_in_the_end_however_it_ends(tmp_path):
    def fail():
        with temporary_neighbour(tmp_path / "target") as folder:
            assert folder.parent == tmp_path
            assert is_temporary(folder.name)
            (folder / "written").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from jaxcnn.runs.files import temporary_neighbour
target = Path(sys.argv[1])
with temporary_neighbour(target) as folder:
    (folder / "written").mkdir()
    if target.exists():
        target.rename(folder / "replaced")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_one_clears_what_a_killed_process_left_and_puts_back_what_it_had_moved(folders):
    """Killed before a rename: with nothing in the target's place, and with the older target out of its place."""
    target, *_ = folders
    missing, notes = target.with_name("missing"), target.with_name(".target-notes.md")
    notes.write_text("precious")
    for path in (target, missing):
        assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -9
    assert not target.exists()
    assert sum(is_temporary(path.name) for path in target.parent.iterdir()) == 2
    for path in (target, missing):
        with temporary_neighbour(path) as folder, temporary_neighbour(path) as other:
            # What a process still holds stays.
            assert folder.exists()
            assert other != folder
    assert (target / "file").read_text("utf-8") == "old"
    assert not missing.exists()
    assert notes.read_text("utf-8") == "precious"
    assert not any(is_temporary(path.name) for path in target.parent.iterdir())


def test_where_there_are_no_locks_nobody_s_folder_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", no_locks)
    with temporary_neighbour(tmp_path / "target") as folder, temporary_neighbour(tmp_path / "target"):
        assert folder.exists()


def no_locks(*_):
    raise OSError(524, "Unknown error 524")


def test_names_of_files_that_are_no_text_are_written_as_csv(tmp_path):
    write_csv(tmp_path / "scores.csv", [["image", "class"], [os.fsdecode(b"scan-\xff.png"), "é"]])
    assert (tmp_path / "scores.csv").read_text("utf-8") == "image,class\nscan-\\udcff.png,é\n"


def test_csv_that_can_not_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x.csv: can't be written: .*; choose another file"):
        write_csv(tmp_path / "file" / "x.csv", [["image"]])
