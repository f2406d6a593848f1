"""Save and restore checkpoints of a training run: the last two, in case the last one is damaged."""

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import jax
from orbax.checkpoint import v1 as orbax

from jaxcnn.errors import UserError
from jaxcnn.runs.orbax_errors import DamagedError, as_os_error, is_damage, reason, without_logs
from jaxcnn.runs.trees import checksums, leaf_names, this_process_alone, verify

State = TypeVar("State")
Checkpoints: TypeAlias = orbax.training.Checkpointer

_KEPT = 2


@dataclasses.dataclass(frozen=True)
class Restored(Generic[State]):
    """A checkpoint that was read.

    Attributes:
        step: after which it was saved.
        progress: what else was saved with it.
        damaged: what is wrong with each newer checkpoint, which could not be read.
    """

    step: int
    state: State
    progress: dict[str, Any]
    damaged: tuple[str, ...]


@contextlib.contextmanager
def open_checkpoints(folder: Path) -> Iterator[Checkpoints]:
    """Open the checkpoints in `folder`, which is made if it is missing; leaving the block waits for pending saves.

    Raises:
        OSError: the folder can't be written, or a save that was pending could not.
        UserError: what is in it keeps Orbax from opening it.
    """
    try:
        with as_os_error(folder), without_logs():
            checkpoints = orbax.training.Checkpointer(
                folder.absolute(),
                save_decision_policy=orbax.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=orbax.training.preservation_policies.LatestN(_KEPT),
                cleanup_tmp_directories=True,
            )
    except OSError:
        raise
    except Exception as error:  # Orbax reads the descriptions of all checkpoints, and raises many kinds.
        way_out = "delete the damaged checkpoint, or overwrite the run"
        raise UserError(f"{folder}: can't be opened ({reason(error)}); {way_out}") from error
    try:
        yield checkpoints
    finally:
        with as_os_error(folder):
            checkpoints.close()


def save(checkpoints: Checkpoints, step: int, state: Any, progress: Mapping[str, Any]) -> None:
    """Start to write `state` and `progress` (JSON) in the background, completely or not at all.

    Raises:
        OSError: the save before could not be written.
    """
    metadata = {"progress": progress, "progress_checksum": _checksum(progress), "checksums": checksums(state)}
    with as_os_error(Path(checkpoints.directory)):
        # Orbax swaps its writer for a new one here, and would no longer wait for what the last one has not finished.
        checkpoints.wait()
        checkpoints.save_async(step, state, custom_metadata=metadata)


def wait(checkpoints: Checkpoints) -> None:
    """Wait until the last save is complete.

    Raises:
        OSError: it could not be written.
    """
    with as_os_error(Path(checkpoints.directory)):
        checkpoints.wait()


def load_latest(checkpoints: Checkpoints, like: State, *, until: int | None = None) -> Restored[State] | None:
    """Restore the newest complete checkpoint; None if there is no checkpoint at all.

    Newer ones, damaged or after step `until`, are deleted: the run will write them again.

    Args:
        like: arrays with the structure, dtypes and placement on devices that the state is to have.
        until: the last step that the state may be of.

    Raises:
        UserError: there are checkpoints, and all are damaged; or one is of a state with other leaves, or can't be read
            for a reason that isn't damage. Nothing is deleted then.
    """
    damaged: list[str] = []
    steps = sorted((checkpoint.step for checkpoint in checkpoints.checkpoints), reverse=True)
    late = [step for step in steps if until is not None and step > until]
    for step in steps[len(late) :]:
        path = Path(checkpoints.directory) / str(step)
        try:
            with without_logs():
                state, progress = _load(checkpoints, step, like)
        except UserError:
            raise
        except Exception as error:  # Orbax and what lies below it raise many kinds.
            if not is_damage(error):
                way_out = "fix that and resume the run, or delete the checkpoint to use the one before"
                raise UserError(f"{path}: can't be read ({reason(error)}); {way_out}") from error
            damaged.append(f"{path} is damaged ({reason(error)})")
            continue
        for newer in steps[: len(late) + len(damaged)]:
            checkpoints.delete(newer)
        return Restored(step, state, progress, tuple(damaged))
    if damaged:
        raise UserError(f"{'; '.join(damaged)}: no checkpoint is left to continue from; overwrite the run")
    for step in late:
        checkpoints.delete(step)
    return None


def read_part(folder: Path, part: str, like: State) -> State:
    """Read one field of the state in the newest of a folder's checkpoints, on the default device; nothing is changed.

    Args:
        part: the field's name.
        like: arrays or `jax.ShapeDtypeStruct`, of the structure and shapes that it is to have.

    Raises:
        ValueError: there is none, it can't be read or is damaged, or has other shapes.
    """
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    if not steps:
        raise ValueError(f"{folder}: holds no checkpoint")
    path = folder.absolute() / str(max(steps))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    try:
        with this_process_alone(), without_logs():
            found = orbax.metadata(path)
            stored, wanted = ([leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (found.metadata[part], like))
            if stored != wanted:
                raise ValueError(f"its {part} has the shapes {stored}, not {wanted}")
            tree = orbax.load(path, {part: abstract})[part]
        verify({name.removeprefix(f".{part}"): sum_ for name, sum_ in found.custom_metadata["checksums"].items()}, tree)
    except Exception as error:  # Orbax and what lies below it raise many kinds.
        raise ValueError(f"{path}: can't be used ({reason(error)})") from error
    return tree


def _load(checkpoints: Checkpoints, step: int, like: State) -> tuple[State, dict[str, Any]]:
    path = Path(checkpoints.directory) / str(step)
    try:
        metadata = checkpoints.metadata(step).custom_metadata
        written, progress = metadata["checksums"], metadata["progress"]
    except (KeyError, TypeError, orbax.errors.InvalidLayoutError):
        # Orbax takes descriptions that it can't read for missing; this raises what is wrong with them.
        for name in ("_CHECKPOINT_METADATA", "state/_METADATA"):
            json.loads((path / name).read_text(encoding="utf-8"))
        raise
    # Checkpoints of older versions have no checksum of the progress.
    if metadata.get("progress_checksum", _checksum(progress)) != _checksum(progress):
        raise DamagedError("its progress differs from what was written")
    # Orbax would say so too, in a line of ten thousand characters.
    if other := set(written).symmetric_difference(leaf_names(like)):
        raise UserError(
            f"{path}: was written by a version that trains another state ({min(other)});"
            " continue with the version that environment.json names, or overwrite the run"
        )
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
    state = checkpoints.load(step, abstract)
    verify(written, state)
    return state, progress


def _checksum(progress: Any) -> int:
    return zlib.crc32(json.dumps(progress, sort_keys=True).encode())
