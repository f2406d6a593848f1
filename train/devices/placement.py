"""Where a run takes place, as the command line says it; no result depends on it but by rounding."""

import dataclasses
from typing import Literal

Mode = Literal["jit", "pmap"]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices and processes."""

    devices: int | Literal["all"] = "all"
    """How many devices share each batch."""
    parallel: Mode = "jit"
    """`jit` over a mesh of the devices, or `pmap`; they give the same."""
    coordinator: str | None = None
    """HOST:PORT of process 0, for a run of several processes that are started one by one."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this one is, from 0."""
    distributed: bool = False
    """For several processes that a cluster has started (Slurm, Open MPI, Cloud TPU, Kubernetes): it knows the rest."""

    def __post_init__(self) -> None:
        """Refuse what names no processes.

        Raises:
            ValueError: the message names the option and what it goes with.
        """
        by_hand = {
            "--coordinator": self.coordinator,
            "--num-processes": self.num_processes,
            "--process-id": self.process_id,
        }
        given = [option for option, value in by_hand.items() if value is not None]
        if given and self.distributed:
            raise ValueError(f"--distributed: asks the cluster, so leave out {' and '.join(given)}")
        if given and len(given) < len(by_hand):
            missing = [option for option in by_hand if option not in given]
            raise ValueError(f"{given[0]} {by_hand[given[0]]}: goes with {' and '.join(missing)}")
        if self.coordinator is not None:
            _check_processes(self.coordinator, self.num_processes or 0, self.process_id or 0)


def _check_processes(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"--coordinator {coordinator}: must be HOST:PORT, such as 10.0.0.1:8476")
    if num_processes < 1:
        raise ValueError(f"--num-processes {num_processes}: must be at least 1")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"--process-id {process_id}: must be at least 0 and below {num_processes}")
