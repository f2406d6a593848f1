"""Choose the devices of a run, and spread data and steps over them.

The batch is divided among the devices and the state is the same on all (data parallelism). Each device runs the step on
its share, and the step's own collectives over `AXIS` join them: gradients are summed in the parameters' type, float32.
Were the division left to the compiler, it would sum a bfloat16 convolution's kernel gradient as it is, in bfloat16.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcnn.data.batch import Batch, Shard
from jaxcnn.errors import UserError

AXIS = "data"
_SAME, _DIVIDED = PartitionSpec(), PartitionSpec(AXIS)

Mode = Literal["jit", "pmap"]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices and processes; results depend on them only by rounding."""

    devices: int | Literal["all"] = "all"
    """Number of devices that share each batch."""
    parallel: Mode = "jit"
    """`jit` over a mesh of the devices, or `pmap`; both compute the same."""
    epoch_on_device: Literal["auto", "yes", "no"] = "auto"
    """Keep the images on the device and run an epoch as one program; `auto`: on an accelerator, if they fit."""
    coordinator: str | None = None
    """HOST:PORT of process 0, for a run of several processes that are started by hand."""
    num_processes: int | None = None
    """Number of processes of the run."""
    process_id: int | None = None
    """Number of this process, from 0."""
    distributed: bool = False
    """Ask the cluster that started the processes for the rest (Slurm, Open MPI, Cloud TPU, Kubernetes)."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the option, and what it goes with, if the options don't name processes."""
        by_hand = {
            "--coordinator": self.coordinator,
            "--num-processes": self.num_processes,
            "--process-id": self.process_id,
        }
        given = [option for option, value in by_hand.items() if value is not None]
        if given and self.distributed:
            raise ValueError(f"--distributed: asks the cluster itself; leave out {' and '.join(given)}")
        if given and len(given) < len(by_hand):
            missing = [option for option in by_hand if option not in given]
            raise ValueError(f"{given[0]} {by_hand[given[0]]}: also needs {' and '.join(missing)}")
        if self.coordinator is None:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not (host and port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 2**16):
            raise ValueError(f"--coordinator {self.coordinator}: must be HOST:PORT, such as 10.0.0.1:8476")
        number, count = self.process_id or 0, self.num_processes or 0
        if count < 1:
            raise ValueError(f"--num-processes {count}: must be at least 1")
        if not 0 <= number < count:
            raise ValueError(f"--process-id {number}: must be at least 0 and below {count}")


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The devices of a run, in all its processes.

    Attributes:
        mesh: one axis, `AXIS`; an abstract one is enough to trace and lower a step.
        mode: how the step is spread over it.
    """

    mesh: Mesh | AbstractMesh
    mode: Mode = "jit"

    @property
    def axis_name(self) -> str | None:
        """The mapped axis that a step sees; None where it sees the whole batch."""
        return AXIS if self.mode == "pmap" or self.mesh.size > 1 else None

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of an array that is the same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def shard(self) -> Shard:
        """The part of each batch that this process reads."""
        return Shard(jax.process_index(), jax.process_count())


def choose_devices(placement: Placement, batch_size: int, accumulate: int = 1) -> Parallel:
    """Choose the devices of a run: the given number of this process, or all devices of all processes.

    Raises:
        UserError: there are fewer, or the batch can't be divided among them, or several processes can't share it so.
    """
    chosen = pick_devices(placement)
    shares = len(chosen) * accumulate
    if rest := batch_size % shares:
        proposed = " or ".join(str(size) for size in (batch_size - rest, batch_size - rest + shares) if size)
        by = f"{len(chosen)} devices" + (f" times {accumulate} micro-batches" if accumulate > 1 else "")
        raise UserError(f"--batch-size {batch_size}: {by} can't divide it evenly; give {proposed}")
    # Not `jax.make_mesh`, which may put the devices in another order: each process must have its part of the batch in
    # one piece, at its place, for the examples to have the places that they have in one process.
    return Parallel(line_of(chosen), placement.parallel)


def line_of(devices: Sequence[jax.Device], axis: str = AXIS) -> Mesh:
    """A mesh of one axis, with the devices in their order."""
    return Mesh(np.array(devices), (axis,), axis_types=(AxisType.Auto,))


def pick_devices(placement: Placement) -> list[jax.Device]:
    """Return the devices that the options ask for.

    Raises:
        UserError: there are fewer, or several processes can't have them so.
    """
    count, devices = placement.devices, jax.devices()
    if count != "all" and not 1 <= count <= len(devices):
        raise UserError(f"--devices {count}: there are {len(devices)} devices; give at most that many, or all")
    if jax.process_count() > 1:
        _check_processes(placement, devices)
    return devices if count == "all" else devices[:count]


def _check_processes(placement: Placement, devices: list[jax.Device]) -> None:
    if placement.parallel == "pmap":
        raise UserError("--parallel pmap: works with one process only; use jit, which computes the same")
    if placement.devices not in ("all", len(devices)):
        raise UserError(
            f"--devices {placement.devices}: {jax.process_count()} processes use all their devices; leave it out"
        )
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        found = ", ".join(str(counts[process]) for process in sorted(counts))
        raise UserError(f"--distributed: the processes have {found} devices; give each the same number")


def replicate(parallel: Parallel, tree: Any) -> Any:
    """Copy arrays to every device; every process must hold the same."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(parallel.everywhere, np.asarray(leaf)), tree
    )


def replicated_shapes(parallel: Parallel, tree: Any) -> Any:
    """The shapes of what `replicate` gives, of a tree of arrays or of shapes, to compile for them."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=parallel.everywhere), tree)


def distribute(parallel: Parallel, batch: Batch) -> Batch:
    """The batch that the processes hold parts of, each device with its share."""
    divided = NamedSharding(parallel.mesh, PartitionSpec(AXIS))
    batch = jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(divided, leaf), batch)
    if parallel.mode == "jit":
        return batch
    return jax.tree.map(lambda leaf: leaf.reshape(parallel.mesh.size, -1, *leaf.shape[1:]), batch)


def compile_train_step(parallel: Parallel, step: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Compile `step(state, batch, key)` for arguments like these; the state's memory is used again."""
    return mapped_train_step(parallel, step).lower(*arguments).compile()


def compile_eval_step(parallel: Parallel, step: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Compile `step(state, batch)` for arguments like these; every process gets the outputs of the whole batch."""
    compiled = mapped_eval_step(parallel, step).lower(*arguments).compile()
    if parallel.mode == "jit":
        return compiled

    def joined(*arguments: Any) -> Any:
        counted, logits = compiled(*arguments)
        return counted, logits.reshape(-1, *logits.shape[2:])

    return joined


def mapped_train_step(parallel: Parallel, step: Callable[..., Any]) -> Any:
    """`step(state, batch, key)` on each device's share of the batch, to be lowered and compiled."""
    if parallel.mode == "pmap":
        return jax.pmap(step, AXIS, in_axes=(None, 0, None), out_axes=None, devices=list(parallel.mesh.devices.flat))
    mapped = _over_mesh(parallel, step, (_SAME, _DIVIDED, _SAME), _SAME)
    return jax.jit(mapped, donate_argnums=0, out_shardings=parallel.everywhere)


def mapped_eval_step(parallel: Parallel, step: Callable[..., Any]) -> Any:
    """The same for `step(state, batch)`."""
    if parallel.mode == "pmap":
        return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, 0), devices=list(parallel.mesh.devices.flat))
    mapped = _over_mesh(parallel, step, (_SAME, _DIVIDED), (_SAME, _DIVIDED))
    return jax.jit(mapped, out_shardings=parallel.everywhere)


def _over_mesh(parallel: Parallel, step: Callable[..., Any], taken: Any, given: Any) -> Callable[..., Any]:
    if parallel.axis_name is None:
        return step
    return jax.shard_map(step, mesh=parallel.mesh, in_specs=taken, out_specs=given, check_vma=False)
