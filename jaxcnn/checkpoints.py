"""Checkpoints of a training run, and single trees such as converted weights. The only file that knows Orbax.

A run keeps two checkpoints: the last, from which it goes on, and the best by validation score. A tree lies in a folder
by itself, with a manifest that says where it came from.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
from flax.traverse_util import flatten_dict
from orbax.checkpoint import v1 as orbax

from jaxcnn.atomic import replace_folder
from jaxcnn.cli import UserError

State = TypeVar("State")
Checkpoints: TypeAlias = orbax.training.Checkpointer

_MANIFEST = "manifest.json"

# Orbax tells each step of a save at level INFO; a reader of a training log doesn't need it.
logging.getLogger("absl").setLevel(logging.WARNING)


def open_checkpoints(folder: Path) -> Checkpoints:
    """The checkpoints in `folder`, which is made when it is missing; a context manager that waits for pending saves."""
    policies = orbax.training.preservation_policies
    return orbax.training.Checkpointer(
        folder.absolute(),
        save_decision_policy=orbax.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(1), policies.BestN(get_metric_fn=_rank, n=1)]
        ),
        cleanup_tmp_directories=True,
    )


def save(checkpoints: Checkpoints, step: int, state: Any, *, f1_macro: float, loss: float) -> None:
    """Start to write `state`, in the background; it appears whole or not at all. The scores rank it."""
    checkpoints.save_async(step, state, metrics={"f1_macro": f1_macro, "loss": loss})


def latest_step(checkpoints: Checkpoints) -> int | None:
    """The step of the newest checkpoint, or None without any."""
    return checkpoints.latest.step if checkpoints.latest else None


def best_step(checkpoints: Checkpoints) -> int:
    """The step of the checkpoint with the highest macro F1 (then the lowest loss, then the later).

    Raises:
        ValueError: there is no checkpoint.
    """
    return max(checkpoints.checkpoints, key=lambda checkpoint: (_rank(checkpoint.metrics), checkpoint.step)).step


def load(checkpoints: Checkpoints, step: int, like: State) -> State:
    """The state saved at `step`, with the structure, dtypes and placement on devices of `like`."""
    return checkpoints.load(step, jax.tree.map(_abstract, like))


def _rank(metrics: Any) -> Any:
    return metrics["f1_macro"], -metrics["loss"]


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


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

    Raises:
        UserError: see `check_free`.
        OSError: the folder can't be written.
    """
    check_free(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A neighbour is on the same file system, so that renaming is all that is left to do in the end.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        written, replaced = Path(temporary, "written").absolute(), Path(temporary, "replaced")
        orbax.save(written, tree)
        (written / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        replace_folder(folder, written, replaced=replaced)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a tree.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / _MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{folder}: holds no weights (no {_MANIFEST}); python -m convert writes such a folder") from (
            error
        )
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is damaged; convert the weights again")
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
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    context = orbax.Context()
    context.pytree.loading.partial_load = True
    try:
        with context:
            return orbax.load(folder.absolute(), abstract)
    except Exception as error:
        raise ValueError(f"{folder} holds no tree, or a damaged one") from error
