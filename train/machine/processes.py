"""Run several processes on one machine or many: they find one another, agree, and end together.

JAX does the work: every process runs the same program on its part of each batch, and the collectives in the compiled
step join them. What is left is said here. Process 0 alone writes to the run folder (Orbax, which knows of processes,
writes checkpoints with all); what it can't write ends all of them. A signal to one process stops all after the same
step. A process that dies takes the others with it, since no collective ends without it.
"""

import contextlib
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jaxcnn.errors import UserError
from train.machine.devices import AXIS, Parallel, Placement
from train.machine.interruption import UnfinishedRunError

# A process that is silent for so long counts as dead; one that dies is noticed at once, by its connections.
HEARTBEAT_SECONDS = 60
_START_SECONDS = 300
_SHUTDOWN_SECONDS = 30
_MOST_BYTES = 2**16

Result = TypeVar("Result")


@contextlib.contextmanager
def processes(placement: Placement) -> Iterator[None]:
    """Connect to the run's other processes until the block ends; does nothing for a single process.

    Raises:
        UserError: the others can't be found.
    """
    if placement.coordinator is None and not placement.distributed:
        yield
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # A CPU runs programs that don't wait for one another side by side, and their collectives would get mixed up.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    # JAX's own handler of SIGTERM would let one pass that comes before the first step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if placement.process_id == 0:
            # Fails where this process can't listen at the port; JAX would write a line of its own about that.
            socket.create_server(("", int(str(placement.coordinator).rpartition(":")[2]))).close()
        with _give_up_after(_START_SECONDS, placement):
            jax.distributed.initialize(
                placement.coordinator,
                placement.num_processes,
                placement.process_id,
                cluster_detection_method=None if placement.distributed else "deactivate",
                initialization_timeout=2 * _START_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            )
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(_not_connected(placement, _first_line(error))) from error
    try:
        with end_with_the_others(UserError, UnfinishedRunError):
            yield
    finally:
        jax.distributed.shutdown()


@contextlib.contextmanager
def _give_up_after(seconds: float, placement: Placement) -> Iterator[None]:
    """End the process with one line where the block takes longer; JAX would abort it, with a stack of C++."""

    def give_up() -> None:
        print(f"error: {_not_connected(placement, f'no answer in {seconds:g} s')}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _not_connected(placement: Placement, reason: str) -> str:
    given = "--distributed" if placement.distributed else f"--coordinator {placement.coordinator}"
    way_out = "start all processes, and give each --coordinator, --num-processes and --process-id"
    return f"{given}: the processes could not connect ({reason}); {way_out}"


def is_first() -> bool:
    """Tell whether this is the process that writes and prints."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def by_first(action: Callable[[], Result]) -> Result:
    """Let process 0 do something while the others wait; all get its result, or fail with its error.

    Raises:
        UserError: process 0 could not do it; or what `action` raised, where there is one process.
    """
    if jax.process_count() == 1:
        return action()
    result, error = None, None
    if is_first():
        try:
            result = action()
        except UserError as raised:
            error = raised
        except OSError as raised:
            error = UserError(str(raised))
    encoded = np.frombuffer(pickle.dumps((result, error)).ljust(_MOST_BYTES, b"\0"), np.uint8)
    result, error = pickle.loads(bytes(multihost_utils.broadcast_one_to_all(encoded)))
    if error is not None:
        raise error
    return result


class Agreement:
    """A number that all processes know, the largest that one of them has: which signal to stop for.

    It is asked for with every step and answered with the next, so that no process waits for a device. That is a sum of
    a few bytes beside the gradients' megabytes. JAX's own service for this (`reached_preemption_sync_point`) knows of
    SIGTERM alone.
    """

    def __init__(self, parallel: Parallel) -> None:
        self._divided = NamedSharding(parallel.mesh, PartitionSpec(AXIS))
        self._maximum = jax.jit(lambda numbers: numbers.max(), out_shardings=parallel.everywhere)
        self._pending: jax.Array | None = None

    def largest(self, number: int) -> int:
        """The largest number that any process gave the last time; all processes must ask equally often."""
        if jax.process_count() == 1:
            return number
        answered, own = self._pending, np.full(jax.local_device_count(), number, np.int32)
        self._pending = self._maximum(jax.make_array_from_process_local_data(self._divided, own))
        return 0 if answered is None else int(answered)


@contextlib.contextmanager
def end_with_the_others(*agreed: type[Exception]) -> Iterator[None]:
    """Where this process fails and the others don't, or another one is lost, end at once and tell why.

    Nothing can be waited for any more, since every wait is for all processes; so there is no orderly way out.

    Args:
        agreed: what all processes raise together; it goes its way.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or isinstance(error, agreed):
            raise
        lost = "has lost another process" if "Gloo" in str(error) or "NCCL" in str(error) else "has failed"
        way_out = "continue with the same command and --resume, also with fewer processes"
        which = f"process {jax.process_index()} of {jax.process_count()}"
        print(f"error: {which} {lost} ({type(error).__name__}: {_first_line(error)}); {way_out}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
