"""A tree is written whole or not at all, and what is read back is what was asked for or an error."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.runs import trees

TREE = {
    "params": {"a": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)}, "b": {"bias": np.ones(5, np.float32)}},
    "batch_stats": {"a": {"mean": np.full(4, 7, np.float32)}},
}


@pytest.fixture
def folder(tmp_path):
    trees.save_tree(tmp_path / "new" / "tree", TREE, {"made": "here"})
    return tmp_path / "new" / "tree"


def shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def test_round_trip_is_exact(folder):
    loaded = trees.load_tree(folder, shapes(TREE))
    jax.tree.map(np.testing.assert_array_equal, loaded, TREE)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    assert trees.read_manifest(folder) == {"made": "here"}
    assert [path.name for path in folder.parent.iterdir()] == ["tree"]


def test_a_part_can_be_read_by_itself(folder):
    part = {"params": {"b": TREE["params"]["b"]}}
    loaded = trees.load_tree(folder, shapes(part))
    assert jax.tree.structure(loaded) == jax.tree.structure(part)
    np.testing.assert_array_equal(loaded["params"]["b"]["bias"], np.ones(5))


def test_it_can_be_moved(folder, tmp_path):
    folder.rename(tmp_path / "elsewhere")
    loaded = trees.load_tree(tmp_path / "elsewhere", shapes(TREE))
    jax.tree.map(np.testing.assert_array_equal, loaded, TREE)


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = (tmp_path / "tree").relative_to(tmp_path)
    trees.save_tree(relative, TREE, {})
    jax.tree.map(np.testing.assert_array_equal, trees.load_tree(relative, shapes(TREE)), TREE)


@pytest.mark.parametrize(
    ("like", "problem"),
    [
        ({"params": {"c": np.ones(5, np.float32)}}, ": has no params/c"),
        (
            {"params": {"b": {"bias": np.ones(6, np.float32)}}},
            r": params/b/bias is float32\(5,\), expected float32\(6",
        ),
        ({"params": {"b": {"bias": np.ones(5, np.int32)}}}, r"is float32\(5,\), expected int32\(5,\)"),
    ],
)
def test_what_is_not_there_is_an_error(folder, like, problem):
    with pytest.raises(ValueError, match=problem):
        trees.load_tree(folder, shapes(like))


def test_a_tree_is_replaced_on_request_only(folder):
    with pytest.raises(UserError, match=f"{folder}: exists; overwrite it"):
        trees.save_tree(folder, TREE, {})
    changed = jax.tree.map(lambda leaf: leaf + 1, TREE)
    trees.save_tree(folder, changed, {"made": "again"}, overwrite=True)
    jax.tree.map(np.testing.assert_array_equal, trees.load_tree(folder, shapes(TREE)), changed)
    assert trees.read_manifest(folder) == {"made": "again"}
    assert [path.name for path in folder.parent.iterdir()] == ["tree"]


def test_a_write_that_fails_halfway_leaves_what_was_there(folder):
    no_json = {"made": object()}  # found out when the arrays are written already
    for target in (folder, folder.with_name("other")):
        with pytest.raises(TypeError):
            trees.save_tree(target, TREE, no_json, overwrite=True)
    assert [path.name for path in folder.parent.iterdir()] == ["tree"]
    jax.tree.map(np.testing.assert_array_equal, trees.load_tree(folder, shapes(TREE)), TREE)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_or_file_of_something_else_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file"):
        with pytest.raises(UserError, match=f"{path}: exists but holds no weights"):
            trees.save_tree(path, TREE, {}, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_manifest_alone_makes_no_tree(tmp_path, overwrite):
    """A browser extension has one, too."""
    (tmp_path / "manifest.json").write_text('{"manifest_version": 3}')
    (tmp_path / "background.js").write_text("precious")
    with pytest.raises(UserError, match=rf"{tmp_path}: exists but holds no weights \(no checksums.json\); choose"):
        trees.save_tree(tmp_path, TREE, {}, overwrite=overwrite)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "background.js"}
    assert (tmp_path / "background.js").read_text("utf-8") == "precious"


@pytest.mark.parametrize("here", [".", "../tree", "inside/.."])
def test_the_folder_that_one_stands_in_can_be_replaced(folder, monkeypatch, here):
    monkeypatch.chdir(folder)
    (folder / "inside").mkdir()
    with pytest.raises(UserError, match="exists; overwrite it"):
        trees.save_tree(Path(here), TREE, {})
    changed = jax.tree.map(lambda leaf: leaf + 1, TREE)
    trees.save_tree(Path(here), changed, {"made": "again"}, overwrite=True)
    jax.tree.map(np.testing.assert_array_equal, trees.load_tree(folder, shapes(TREE)), changed)
    assert trees.read_manifest(folder) == {"made": "again"}
    assert [path.name for path in folder.parent.iterdir()] == ["tree"]


def test_a_folder_without_a_tree_says_so(tmp_path):
    with pytest.raises(
        UserError, match=r"holds no weights \(no manifest.json\); make such a folder with python -m convert"
    ):
        trees.read_manifest(tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no tree of arrays"):
        trees.load_tree(tmp_path, shapes(TREE))


def test_a_damaged_manifest_says_so(folder):
    for content in ('{"made": ', "[]", "3", ""):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(UserError, match=r"manifest.json: is damaged"):
            trees.read_manifest(folder)


def test_a_tree_that_lost_its_description_says_so(folder):
    (folder / "state" / "_METADATA").unlink()
    message = "holds no tree of arrays, or a damaged one; let python -m convert write it again"
    with pytest.raises(UserError, match=message):
        trees.load_tree(folder, shapes(TREE))


def test_a_disk_that_does_not_answer_is_no_damage(folder, monkeypatch):
    def no_disk(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("orbax.checkpoint.v1.load", no_disk)
    with pytest.raises(UserError, match=r"can't be read \(Input/output error\); fix that and try again"):
        trees.load_tree(folder, shapes(TREE))


@pytest.mark.parametrize("content", ["", "[]", "3", '{"[\'params\']": "x"}', "[" * 100_000])
def test_so_does_one_without_its_checksums(folder, content):
    (folder / "checksums.json").write_text(content)
    with pytest.raises(UserError, match=r"checksums\.json: is damaged \(.*\); let python -m convert write it again"):
        trees.load_tree(folder, shapes(TREE))


def test_what_is_read_is_of_one_folder_whatever_takes_its_place_meanwhile(folder):
    """Ten times between the two reads, and once it is away for a moment."""
    changes = iter(range(10))

    def read():
        manifest = trees.read_manifest(folder)
        if (change := next(changes, None)) is not None:
            tree = jax.tree.map(lambda leaf, change=change: leaf + change, TREE)
            trees.save_tree(folder, tree, {"made": str(change)}, overwrite=True)
        if change == 5:
            folder.rename(folder.with_name("away"))
            try:
                return manifest["made"], trees.load_tree(folder, shapes(TREE))
            finally:
                folder.with_name("away").rename(folder)
        return manifest["made"], trees.load_tree(folder, shapes(TREE))

    made, tree = trees.read_unchanged(folder, read)
    assert made == "9"
    jax.tree.map(np.testing.assert_array_equal, tree, jax.tree.map(lambda leaf: leaf + 9, TREE))


def test_a_read_that_fails_of_a_folder_that_stays_is_an_error(folder):
    (folder / "manifest.json").unlink()
    for path in (folder, folder.with_name("missing")):
        with pytest.raises(UserError, match="holds no weights"):
            trees.read_unchanged(path, lambda path=path: trees.read_manifest(path))


def test_arrays_that_are_cut_off_are_an_error(folder):
    for path in folder.rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # In a process of its own: Orbax goes on with the other arrays after an error, and complains at any time later.
    script = f"""
import numpy as np
from pathlib import Path
from jaxcnn.runs.trees import load_tree
try:
    load_tree(Path({str(folder)!r}), {{"params": {{"b": {{"bias": np.ones(5, np.float32)}}}}}})
except ValueError as error:
    print(error, flush=True)
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout
    assert shown == f"{folder}: holds no tree of arrays, or a damaged one; let python -m convert write it again\n"


def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path, capfd):
    tree = {str(i): np.random.default_rng(i).normal(size=(64, 64)) for i in range(8)}
    whole = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, whole[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            trees.save_tree(tmp_path / "weights", tree, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    assert error.value.filename == str(tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""
