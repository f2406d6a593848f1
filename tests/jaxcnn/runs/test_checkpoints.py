"""Checkpoints: what is loaded is what was saved, or it is found to be damaged and the one before it is taken."""

import asyncio
import errno
import gc
import json
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath
from orbax.checkpoint.checkpoint_manager import CheckpointManager

from jaxcnn.errors import UserError
from jaxcnn.runs import checkpoints


def state(step):
    """Leaves of several kinds, different at every step."""
    key = jax.random.key(step)
    return {
        "step": jnp.int32(step),
        "kernel": jax.random.normal(key, (3, 3, 2, 4)),
        "nested": ({"mean": jnp.full((4,), step / 7)}, jnp.arange(3)),
        "empty": {},
    }


def save_all(folder, *steps):
    with checkpoints.open_checkpoints(folder) as saved:
        for step in steps:
            checkpoints.save(saved, step, state(step), {"loss": 0.1 + step / 3})


def load_latest(folder):
    with checkpoints.open_checkpoints(folder) as saved:
        return checkpoints.load_latest(saved, jax.tree.map(jnp.zeros_like, state(0)))


def assert_is(restored, step):
    jax.tree.map(np.testing.assert_array_equal, restored.state, state(step))
    assert restored.progress == {"loss": 0.1 + step / 3}


@pytest.mark.slow
def test_round_trip_is_exact_in_another_session(tmp_path):
    save_all(tmp_path / "run", 5)
    restored = load_latest(tmp_path / "run")
    assert_is(restored, 5)
    assert restored.damaged == ()
    assert jax.tree.map(lambda leaf: leaf.dtype, restored.state) == jax.tree.map(lambda leaf: leaf.dtype, state(5))


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    """The write goes on in the background while the next step overwrites the buffers it is fed."""
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    large = {"kernel": jax.random.normal(jax.random.key(0), (2048, 2048))}
    expected = np.array(large["kernel"])
    with checkpoints.open_checkpoints(tmp_path) as saved:
        checkpoints.save(saved, 1, large, {})
        overwritten = overwrite(large)
    with checkpoints.open_checkpoints(tmp_path) as saved:
        restored = checkpoints.load_latest(saved, overwritten)
    np.testing.assert_array_equal(restored.state["kernel"], expected)


def test_a_save_is_complete_before_the_next_begins(tmp_path, monkeypatch):
    """However slow the disk is, and however late Orbax's thread begins to wait for it."""
    wait_for_files, rename = CheckpointManager._finalize, AtomicRenameTemporaryPath.finalize

    def late(*arguments):
        time.sleep(0.05)
        wait_for_files(*arguments)

    async def slow(*arguments, **options):
        await asyncio.sleep(0.3)
        await rename(*arguments, **options)

    monkeypatch.setattr(CheckpointManager, "_finalize", late)
    monkeypatch.setattr(AtomicRenameTemporaryPath, "finalize", slow)
    with checkpoints.open_checkpoints(tmp_path) as saved:
        checkpoints.save(saved, 1, state(1), {})
        checkpoints.save(saved, 2, state(2), {})
        assert (tmp_path / "1").is_dir()


def test_the_last_two_are_kept(tmp_path):
    save_all(tmp_path, 1, 2, 3)
    assert {folder.name for folder in tmp_path.iterdir()} == {"2", "3"}
    assert_is(load_latest(tmp_path), 3)


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert load_latest(tmp_path) is None


def cut_off(folder):
    for path in folder.rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(folder):
    """In the middle of the arrays, where nothing but a checksum can tell."""
    largest = max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(bytes(content))


def lose_the_arrays(folder):
    for path in folder.rglob("d"):
        shutil.rmtree(path)


def lose_the_description(folder):
    (folder / "state" / "_METADATA").unlink()


def empty_the_metadata(folder):
    (folder / "_CHECKPOINT_METADATA").write_text("")


# Orbax reads all arrays at once; when one can't be read it leaves the others' errors to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DAMAGE = [cut_off, flip_a_byte, lose_the_arrays, lose_the_description, empty_the_metadata]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path, damage):
    save_all(tmp_path, 4, 8)
    damage(tmp_path / "8")
    restored = load_latest(tmp_path)
    assert_is(restored, 4)
    assert len(restored.damaged) == 1
    assert restored.damaged[0].startswith(f"{tmp_path / '8'} is damaged (")
    # The run goes on and saves the same step again.
    save_all(tmp_path, 8)
    assert_is(load_latest(tmp_path), 8)


def no_disk(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def no_memory(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 30 GB.")


def another_orbax(*_):
    raise TypeError("load() got an unexpected keyword argument")


def other_shardings(*_):
    raise ValueError("Sharding of 2 devices, but there is 1.")


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (no_disk, "Input/output error"),
        (no_memory, "Out of memory"),
        (another_orbax, "keyword argument"),
        (other_shardings, "Sharding of 2 devices"),
    ],
)
@pytest.mark.parametrize("method", ["load", "metadata"])
def test_what_is_no_damage_is_told_and_no_checkpoint_is_deleted(tmp_path, monkeypatch, fail, reason, method):
    save_all(tmp_path, 4, 8)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, method, fail)
        with pytest.raises(UserError, match=rf"8: can't be read \(.*{reason}.*\); fix that and resume the run"):
            load_latest(tmp_path)
    assert_is(load_latest(tmp_path), 8)


@pytest.fixture
def public_folder():
    """A folder that another user may go into; root becomes that user for the time."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield Path(folder)
        os.seteuid(user)


@pytest.mark.parametrize("name", ["", "_CHECKPOINT_METADATA", "state", "state/_METADATA", "state/manifest.ocdbt"])
def test_a_checkpoint_that_may_not_be_read_is_not_damaged(public_folder, name):
    """Orbax takes some of what it can't read for missing."""
    save_all(public_folder / "run", 4, 8)
    closed = public_folder / "run" / "8" / name
    mode = stat.S_IMODE(closed.stat().st_mode)
    closed.chmod(0)
    try:
        with pytest.raises(UserError, match=r"8: can't be read \(Permission denied\)"):
            load_latest(public_folder / "run")
    finally:
        closed.chmod(mode)
    assert_is(load_latest(public_folder / "run"), 8)


def test_a_position_that_was_changed_is_damage(tmp_path):
    save_all(tmp_path, 4, 8)
    path = tmp_path / "8" / "_CHECKPOINT_METADATA"
    content = json.loads(path.read_text("utf-8"))
    content["custom_metadata"]["progress"]["loss"] += 1e-9
    path.write_text(json.dumps(content))
    restored = load_latest(tmp_path)
    assert_is(restored, 4)
    assert "8 is damaged (its progress differs from what was written)" in restored.damaged[0]


def test_a_checkpoint_of_before_its_position_had_a_checksum_is_read(tmp_path):
    save_all(tmp_path, 8)
    path = tmp_path / "8" / "_CHECKPOINT_METADATA"
    content = json.loads(path.read_text("utf-8"))
    del content["custom_metadata"]["progress_checksum"]
    path.write_text(json.dumps(content))
    assert_is(load_latest(tmp_path), 8)


def test_a_folder_that_orbax_can_not_open_is_told_and_kept(tmp_path):
    save_all(tmp_path, 4, 8)
    (tmp_path / "8" / "_CHECKPOINT_METADATA").write_text("[]")
    with pytest.raises(UserError, match=rf"{tmp_path}: can't be opened \(.*\); delete the damaged checkpoint"):
        load_latest(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == {"4", "8"}


def test_without_a_whole_checkpoint_there_is_no_going_on(tmp_path):
    save_all(tmp_path, 4, 8)
    for step in ("4", "8"):
        flip_a_byte(tmp_path / step)
    with pytest.raises(UserError, match=r"8 is damaged .*4 is damaged .* overwrite the run"):
        load_latest(tmp_path)


def test_nothing_is_told_of_a_damaged_checkpoint_later(tmp_path, caplog):
    """Of the arrays that couldn't be read either, when the garbage is collected."""
    save_all(tmp_path, 1, 2)
    cut_off(tmp_path / "2")
    assert_is(load_latest(tmp_path), 1)
    gc.collect()
    assert not caplog.records


def test_what_a_killed_save_leaves_behind_is_no_checkpoint(tmp_path):
    save_all(tmp_path, 4)
    shutil.copytree(tmp_path / "4", tmp_path / "8.orbax-checkpoint-tmp")
    assert_is(load_latest(tmp_path), 4)


def test_a_state_with_other_leaves_is_refused_and_kept(tmp_path):
    save_all(tmp_path, 4, 8)
    other = {name: leaf for name, leaf in state(0).items() if name != "kernel"} | {"vector": jnp.zeros(72)}
    with checkpoints.open_checkpoints(tmp_path) as saved, pytest.raises(UserError, match=r"8: .* \(\['kernel'\]\);"):
        checkpoints.load_latest(saved, other)
    assert_is(load_latest(tmp_path), 8)
