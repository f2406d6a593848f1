"""Checkpoints of a training run, and single trees such as converted weights. The only file that knows Orbax.

A run keeps its last two checkpoints, so that there is one to go on from when the last is damaged. A tree lies in a
folder by itself, with a manifest that says where it came from. Every array has a checksum: a damaged file may well be
one that can be read.
"""

import contextlib
import dataclasses
import json
import logging
import os
import re
import secrets
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as orbax

from jaxcnn.atomic import replace_folder
from jaxcnn.cli import UserError

State = TypeVar("State")
Checkpoints: TypeAlias = orbax.training.Checkpointer

_MANIFEST = "manifest.json"
_CHECKSUMS = "checksums.json"
_KEPT = 2

# Orbax tells each step of a save at level INFO, and pages of what goes wrong before it raises it.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class Restored(Generic[State]):
    """A checkpoint that was read.

    Attributes:
        state: as it was saved.
        progress: what else was saved with it.
        damaged: what is wrong with each newer checkpoint, which could not be read.
    """

    state: State
    progress: dict[str, Any]
    damaged: tuple[str, ...]


@contextlib.contextmanager
def open_checkpoints(folder: Path) -> Iterator[Checkpoints]:
    """The checkpoints in `folder`, which is made when it is missing; the end waits for pending saves.

    Raises:
        OSError: the folder can't be written, or a save that was pending could not.
    """
    with _as_os_error(folder):
        checkpoints = orbax.training.Checkpointer(
            folder.absolute(),
            save_decision_policy=orbax.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=orbax.training.preservation_policies.LatestN(_KEPT),
            cleanup_tmp_directories=True,
        )
    try:
        yield checkpoints
    finally:
        with _as_os_error(folder):
            checkpoints.close()


def save(checkpoints: Checkpoints, step: int, state: Any, progress: Mapping[str, Any]) -> None:
    """Start to write `state` and `progress` (JSON), in the background; they appear whole or not at all.

    Raises:
        OSError: the save before could not be written.
    """
    metadata = {"progress": progress, "checksums": _checksums(state)}
    with _as_os_error(Path(checkpoints.directory)):
        checkpoints.save_async(step, state, custom_metadata=metadata)


@contextlib.contextmanager
def _as_os_error(folder: Path) -> Iterator[None]:
    """Orbax and what lies below it raise many kinds where a file can't be written; let it be the one that says why."""
    hook = sys.unraisablehook
    sys.unraisablehook = _but_late_reports(hook)
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error
    sys.unraisablehook = hook


def _but_late_reports(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The hook for errors that nobody can catch, without those of writes that end after another has failed.

    Orbax closes its event loop when a write fails. The others report to it all the same, some of them after the error
    was raised, and each would print a page.
    """

    def without(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return without


def load_latest(checkpoints: Checkpoints, like: State) -> Restored[State] | None:
    """The newest checkpoint that is whole, or None where there is no checkpoint at all.

    Damaged ones that are newer are deleted: the run will write them again.

    Args:
        checkpoints: of a run.
        like: arrays with the structure, dtypes and placement on devices that the state is to have.

    Raises:
        UserError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    steps = sorted((checkpoint.step for checkpoint in checkpoints.checkpoints), reverse=True)
    for step in steps:
        try:
            with _without_logs():
                state, progress = _load(checkpoints, step, like)
        except Exception as error:  # Orbax and what lies below it raise many kinds.
            reason = str(error).split("\n")[0]
            damaged.append(f"{Path(checkpoints.directory) / str(step)} is damaged ({reason})")
            continue
        for newer in steps[: len(damaged)]:
            checkpoints.delete(newer)
        return Restored(state, progress, tuple(damaged))
    if damaged:
        raise UserError(f"{'; '.join(damaged)}: no checkpoint is left to go on from; start again with --overwrite")
    return None


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Orbax logs pages on what it can't read; the error that it raises is enough."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _load(checkpoints: Checkpoints, step: int, like: State) -> tuple[State, dict[str, Any]]:
    metadata = checkpoints.metadata(step).custom_metadata
    state = checkpoints.load(step, jax.tree.map(_abstract, like))
    _verify(metadata["checksums"], state)
    return state, metadata["progress"]


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(path): zlib.crc32(np.ascontiguousarray(leaf)) for path, leaf in leaves}


def _verify(checksums: Mapping[str, int], tree: Any) -> None:
    """See that the arrays that were read are those that were written.

    Raises:
        ValueError: some are not.
    """
    wrong = [path for path, checksum in _checksums(tree).items() if checksums.get(path) != checksum]
    if wrong:
        raise ValueError(f"{len(wrong)} arrays differ from what was written, the first is {wrong[0]}")


def check_free(folder: Path, *, overwrite: bool) -> None:
    """See that `save_tree` may write to the folder.

    Raises:
        UserError: it exists, and is no tree or is not to be overwritten.
    """
    if not folder.exists():
        return
    if not (folder / _MANIFEST).is_file():
        raise UserError(f"{folder}: exists and holds no weights (no {_MANIFEST}); choose another place")
    if not overwrite:
        raise UserError(f"{folder}: exists; replace it with --overwrite")


def save_tree(folder: Path, tree: Mapping[str, Any], manifest: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write nested dictionaries of NumPy arrays, and the manifest as manifest.json; all appears at once or not at all.

    Of a run of several processes all must call this, with the same tree.

    Raises:
        UserError: see `check_free`.
        OSError: the folder can't be written.
    """
    check_free(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_neighbour(folder) as temporary:
        written, replaced = Path(temporary, "written").absolute(), Path(temporary, "replaced")
        with _as_os_error(folder):
            orbax.save(written, tree)
        if jax.process_index() == 0:
            (written / _CHECKSUMS).write_text(json.dumps(_checksums(tree)) + "\n")
            (written / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            replace_folder(folder, written, replaced=replaced)


@contextlib.contextmanager
def _temporary_neighbour(folder: Path) -> Iterator[Path]:
    """A folder beside it, on the same file system, so that renaming is all that is left to do in the end.

    Orbax writes with all processes of a run, which must know it by the same name.
    """
    number = int(multihost_utils.broadcast_one_to_all(np.int32(secrets.randbelow(2**31))))
    temporary = folder.with_name(f".{folder.name}-{number:08x}")
    temporary.mkdir(exist_ok=True)
    try:
        yield temporary
    finally:
        if jax.process_index() == 0:
            shutil.rmtree(temporary)


def _this_process_alone() -> orbax.Context:
    """Orbax takes a load for one that all processes of a run take part in; each reads a tree by itself."""
    index = jax.process_index()
    alone = orbax.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
    )
    return orbax.Context(multiprocessing_options=alone)


def read_manifest(folder: Path, writer: str = "python -m convert") -> dict[str, Any]:
    """The manifest of a tree.

    Raises:
        UserError: there is none, or it is damaged; the message names `writer`, the command that makes one.
    """
    path = folder / _MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{folder}: holds no weights (no {_MANIFEST}); {writer} writes such a folder") from error
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is damaged; let {writer} write it again")
    return content


def load_tree(folder: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a tree that `like` has, on the default device; the others are not read.

    Args:
        folder: written by `save_tree`.
        like: nested dictionaries of arrays or `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: the folder is no tree or a damaged one, or a leaf is missing or has another shape or type.
    """
    try:
        stored = flatten_dict(orbax.metadata(folder.absolute()).metadata, sep="/")
    except Exception as error:  # Orbax and what lies below it raise many kinds.
        raise ValueError(f"{folder} holds no tree, or a damaged one") from error
    # Orbax gives a leaf that is missing back as it was asked for, without a word.
    for path, leaf in flatten_dict(like, sep="/").items():
        if path not in stored:
            raise ValueError(f"{folder} has no {path}")
        if (stored[path].shape, stored[path].dtype) != (leaf.shape, leaf.dtype):
            found, expected = (f"{array.dtype}{array.shape}" for array in (stored[path], leaf))
            raise ValueError(f"{path} in {folder} is {found}, expected {expected}")
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    context = _this_process_alone()
    context.pytree.loading.partial_load = True
    try:
        with context:
            tree = orbax.load(folder.absolute(), abstract)
        _verify(json.loads((folder / _CHECKSUMS).read_text()), tree)
        return tree
    except Exception as error:
        raise ValueError(f"{folder} holds no tree, or a damaged one") from error
