"""Save and load a tree of arrays in its own folder, with a manifest that says where it came from."""

import contextlib
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as orbax

from jaxcnn.errors import UserError
from jaxcnn.runs.files import clear_leftovers, held_folder, replace_folder, temporary_folder_name
from jaxcnn.runs.json_files import read_json, write_json
from jaxcnn.runs.orbax_errors import DamagedError, as_os_error, is_damage, reason, without_logs

Content = TypeVar("Content")

_MANIFEST = "manifest.json"
_CHECKSUMS = "checksums.json"


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Check that `save_tree` may write to the folder.

    Raises:
        UserError: it exists, and is no tree or is not to be overwritten.
    """
    if not folder.exists():
        return
    # Browser extensions and others have a manifest.json, too.
    for name in (_MANIFEST, _CHECKSUMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: exists but holds no weights (no {name}); choose another folder")
    if not overwrite:
        raise UserError(f"{folder}: exists; overwrite it, or choose another folder")


def save_tree(folder: Path, tree: Mapping[str, Any], manifest: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write nested dictionaries of NumPy arrays, and manifest.json, completely or not at all.

    Of a run of several processes all must call this, with the same tree.

    Raises:
        UserError: see `check_free`.
        OSError: the folder can't be written.
    """
    check_free(folder, overwrite=overwrite)
    # "." and ".." have neighbours, too.
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_neighbour(target) as temporary:
        written, replaced = Path(temporary, "written"), Path(temporary, "replaced")
        with as_os_error(folder):
            orbax.save(written, tree)
        if jax.process_index() == 0:
            write_json(written / _CHECKSUMS, checksums(tree))
            write_json(written / _MANIFEST, manifest)
            replace_folder(target, written, replaced=replaced)


@contextlib.contextmanager
def _temporary_neighbour(folder: Path) -> Iterator[Path]:
    """As in `jaxcnn.runs.files`, but Orbax writes with all processes of a run, which must know it by the same name."""
    first = jax.process_index() == 0
    if first:
        clear_leftovers(folder)
    number = multihost_utils.broadcast_one_to_all(np.uint32(secrets.randbits(32)))
    temporary = temporary_folder_name(folder, int(number))
    with held_folder(temporary) if first else contextlib.nullcontext():
        temporary.mkdir(exist_ok=True)
        yield temporary


def this_process_alone() -> orbax.Context:
    """For one process that loads a part of a tree; Orbax takes a load for one in which all processes take part."""
    index = jax.process_index()
    alone = orbax.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
    )
    context = orbax.Context(multiprocessing_options=alone)
    context.pytree.loading.partial_load = True
    return context


def read_unchanged(folder: Path, read: Callable[[], Content]) -> Content:
    """What `read` gives of the folder; again where another took its place meanwhile, so that all of it is of one."""
    while True:
        try:
            before = os.open(folder, os.O_RDONLY)
        except OSError:
            return read()
        # While it is open, no other folder can be taken for it.
        try:
            content = read()
            if _is_still(folder, before):
                return content
        except (OSError, ValueError):
            if _is_still(folder, before):
                raise
        finally:
            os.close(before)


def _is_still(folder: Path, before: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(before))
    except OSError:
        return False


def read_manifest(folder: Path, schema: Any = dict[str, Any], *, writer: str = "python -m convert") -> dict[str, Any]:
    """Read the manifest of a tree.

    Args:
        schema: that the manifest must have; see `jaxcnn.runs.json_files.read_json`.
        writer: the command that makes such a folder, for messages.

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    if not (folder / _MANIFEST).exists():
        raise UserError(f"{folder}: holds no weights (no {_MANIFEST}); make such a folder with {writer}")
    return read_json(folder / _MANIFEST, schema, way_out=f"let {writer} write it again")


def load_tree(folder: Path, like: Mapping[str, Any], *, writer: str = "python -m convert") -> dict[str, Any]:
    """Load the leaves of a tree that `like` has on the default device; other leaves are not read.

    Args:
        folder: written by `save_tree`.
        like: nested dictionaries of arrays or `jax.ShapeDtypeStruct`.
        writer: the command that makes such a folder, for messages.

    Raises:
        UserError: the folder is no tree or a damaged one, or can't be read, or a leaf is missing or has another shape
            or type.
    """
    try:
        with without_logs():
            found = orbax.metadata(folder.absolute()).metadata
            if found is None:  # Orbax has only logged why.
                found = orbax.load(folder.absolute())
            stored = flatten_dict(found, sep="/")
    except Exception as error:  # Orbax and what lies below it raise many kinds.
        raise _unreadable(folder, error, writer) from error
    # Orbax gives a leaf that is missing back as it was asked for, without a word.
    for path, leaf in flatten_dict(like, sep="/").items():
        if path not in stored:
            raise UserError(f"{folder}: has no {path}; let {writer} write it again")
        if (stored[path].shape, stored[path].dtype) != (leaf.shape, leaf.dtype):
            has, expected = (f"{array.dtype}{array.shape}" for array in (stored[path], leaf))
            raise UserError(f"{folder}: {path} is {has}, expected {expected}; let {writer} write it again")
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    try:
        with this_process_alone(), without_logs():
            tree = orbax.load(folder.absolute(), abstract)
        verify(read_json(folder / _CHECKSUMS, dict[str, int], way_out=f"let {writer} write it again"), tree)
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(folder, error, writer) from error
    return tree


def _unreadable(folder: Path, error: Exception, writer: str) -> UserError:
    if is_damage(error) or isinstance(error, orbax.errors.InvalidLayoutError):
        return UserError(f"{folder}: holds no tree of arrays, or a damaged one; let {writer} write it again")
    return UserError(f"{folder}: can't be read ({reason(error)}); fix that and try again")


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array, by its name."""
    leaves = jax.tree.leaves(jax.device_get(tree))
    return {name: zlib.crc32(np.ascontiguousarray(leaf)) for name, leaf in zip(leaf_names(tree), leaves, strict=True)}


def leaf_names(tree: Any) -> list[str]:
    """Where each leaf is, in Python's notation."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def verify(written: Mapping[str, int], tree: Any) -> None:
    """Check that the arrays that were read are those that were written.

    Raises:
        DamagedError: some are not.
    """
    wrong = [path for path, checksum in checksums(tree).items() if written.get(path) != checksum]
    if wrong:
        raise DamagedError(f"{len(wrong)} arrays differ from what was written, the first is {wrong[0]}")
