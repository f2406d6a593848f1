"""A tree of arrays in a folder by itself, with a manifest that says where it came from."""

import contextlib
import json
import secrets
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as orbax

from jaxcnn.errors import UserError
from jaxcnn.runs.files import replace_folder
from jaxcnn.runs.orbax_errors import as_os_error, without_logs

_MANIFEST = "manifest.json"
_CHECKSUMS = "checksums.json"


def check_free(folder: Path, *, overwrite: bool) -> None:
    """See that `save_tree` may write to the folder.

    Raises:
        UserError: it exists, and is no tree or is not to be overwritten.
    """
    if not folder.exists():
        return
    # Browser extensions and others have a manifest.json, too.
    for name in (_MANIFEST, _CHECKSUMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: exists and holds no weights (no {name}); choose another place")
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
    # "." and ".." have neighbours, too.
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_neighbour(target) as temporary:
        written, replaced = Path(temporary, "written"), Path(temporary, "replaced")
        with as_os_error(folder):
            orbax.save(written, tree)
        if jax.process_index() == 0:
            (written / _CHECKSUMS).write_text(json.dumps(checksums(tree)) + "\n")
            (written / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            replace_folder(target, written, replaced=replaced)


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
        with without_logs():
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
        with context, without_logs():
            tree = orbax.load(folder.absolute(), abstract)
        verify(json.loads((folder / _CHECKSUMS).read_text()), tree)
        return tree
    except Exception as error:
        raise ValueError(f"{folder} holds no tree, or a damaged one") from error


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array, by its name."""
    leaves = jax.tree.leaves(jax.device_get(tree))
    return {name: zlib.crc32(np.ascontiguousarray(leaf)) for name, leaf in zip(leaf_names(tree), leaves, strict=True)}


def leaf_names(tree: Any) -> list[str]:
    """Where each leaf is, in Python's notation."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def verify(written: Mapping[str, int], tree: Any) -> None:
    """See that the arrays that were read are those that were written.

    Raises:
        ValueError: some are not.
    """
    wrong = [path for path, checksum in checksums(tree).items() if written.get(path) != checksum]
    if wrong:
        raise ValueError(f"{len(wrong)} arrays differ from what was written, the first is {wrong[0]}")
