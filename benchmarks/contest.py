"""Two processes that take turns, so that whatever else the machine does slows both alike."""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from benchmarks.peers import OURS, PEERS, PYTORCH

# What `keep_freed_memory` sets for this project: it saves PyTorch a fourth of the time of a step, too.
_KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**64 - 1), "MALLOC_ARENA_MAX": "1"}


@dataclasses.dataclass(frozen=True)
class Contest:
    """A piece of work: the function of that name in `benchmarks.ours` and in the peer's module.

    Attributes:
        name: of the functions.
        batch: images of a step.
        size: of an image.
        device: what both sides work on, "cuda" or "cpu", each with its best settings and with its inputs there. Empty:
            peers work on the CPU, and this project on what JAX finds.
        arithmetic: of convolutions and matrix products; the parameters are float32.
        steps: in a piece of work, which ends with the only synchronisation.
        peer: who does it, of `benchmarks.peers`. PyTorch works on the CPU as its users would have it by default.
        exported: the network as an ONNX file, for the runtimes that read one.
    """

    name: str
    batch: int
    size: int = 128
    device: Literal["", "cpu", "cuda"] = ""
    arithmetic: Literal["float32", "tf32", "bfloat16"] = "float32"
    steps: int = 1
    peer: str = PYTORCH
    exported: str = ""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one side took.

    Attributes:
        seconds: of a step, one a round.
        start: seconds from a fresh process to the end of the first piece of work, with nothing compiled before.
        restart: the same for the process after it, which finds what the first one left in the cache.
        megabytes: peak memory of the process, or what it took of a GPU.
        device: that worked.
    """

    seconds: tuple[float, ...]
    start: float
    restart: float
    megabytes: float
    device: str

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True)
class Result:
    """Both sides of a contest; `contest.peer` is the other one."""

    contest: Contest
    ours: Measured
    theirs: Measured

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast as the peer, round by round."""
        return tuple(b / a for a, b in zip(self.ours.seconds, self.theirs.seconds, strict=True))


def run_contest(contest: Contest, peers: Sequence[str], rounds: int) -> list[Result]:
    """Start this project and its peers, one after the other and each twice, and let them take turns.

    Raises:
        RuntimeError: one of them failed; its own error is on stderr.
    """
    with contextlib.ExitStack() as started:
        cache = started.enter_context(tempfile.TemporaryDirectory())
        sides = [dataclasses.replace(contest, peer=peer, exported=f"{cache}/network.onnx") for peer in (OURS, *peers)]
        if any(PEERS[peer].module == "runtimes" for peer in peers):
            subprocess.run(_command("theirs", sides[0]), check=True)
        workers, starts = [], []
        for side in sides:
            with _worker(side, cache) as (_, first):
                pass
            worker, second = started.enter_context(_worker(side, cache))
            workers.append(worker)
            starts.append((first, second))
        warm_up = 1 if contest.device else 0
        answers = [[_next(worker) for worker in workers] for _ in range(warm_up + rounds)][warm_up:]
    ours, *theirs = (
        Measured(tuple(answer["seconds"] for answer in side), *start, side[-1]["megabytes"], side[-1]["device"])
        for side, start in zip(zip(*answers, strict=True), starts, strict=True)
    )
    return [Result(side, ours, measured) for side, measured in zip(sides[1:], theirs, strict=True)]


def _command(module: str, contest: Contest) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{module}", json.dumps(dataclasses.asdict(contest))]


@contextlib.contextmanager
def _worker(contest: Contest, cache: str) -> Iterator[tuple["subprocess.Popen[str]", float]]:
    """A worker that has done its first piece of work, and the seconds until then; it ends with the block."""
    settings = {"XDG_CACHE_HOME": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/{list(PEERS).index(contest.peer)}"}
    if contest.device:
        # JAX would take three quarters of a GPU's memory before PyTorch comes.
        settings |= {"JAX_PLATFORMS": contest.device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if contest.peer not in (OURS, PYTORCH):
        settings |= _KEPT_MEMORY
    start = time.perf_counter()
    worker = subprocess.Popen(
        _command("worker", contest), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | settings
    )
    try:
        _read(worker)
        yield worker, time.perf_counter() - start
    finally:
        worker.kill()
        worker.communicate()


def _next(worker: "subprocess.Popen[str]") -> dict[str, Any]:
    assert worker.stdin is not None
    print(file=worker.stdin, flush=True)
    return _read(worker)


def _read(worker: "subprocess.Popen[str]") -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"the worker failed: {' '.join(map(str, worker.args))}")  # type: ignore[arg-type]
    return json.loads(line)
