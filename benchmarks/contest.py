"""Two processes that take turns, so that whatever else the machine does slows both alike."""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from typing import Any, Literal

SIDES: tuple[Literal["ours", "theirs"], ...] = ("ours", "theirs")


@dataclasses.dataclass(frozen=True)
class Contest:
    """A piece of work: the function of that name in `benchmarks.ours` and `benchmarks.theirs`."""

    name: str
    batch: int
    size: int = 128


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one side took.

    Attributes:
        seconds: one a round.
        start: seconds from a fresh process to the end of the first piece of work.
        megabytes: peak memory of the process.
    """

    seconds: tuple[float, ...]
    start: float
    megabytes: float

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True)
class Result:
    """Both sides of a contest."""

    contest: Contest
    ours: Measured
    theirs: Measured

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast as PyTorch, round by round."""
        return tuple(b / a for a, b in zip(self.ours.seconds, self.theirs.seconds, strict=True))


def run_contest(contest: Contest, rounds: int) -> Result:
    """Start both sides, one after the other, and let them take turns.

    Raises:
        RuntimeError: one of them failed; its own error is on stderr.
    """
    workers, starts = [], []
    try:
        for side in SIDES:
            start = time.perf_counter()
            workers.append(_start(side, contest))
            _read(workers[-1])
            starts.append(time.perf_counter() - start)
        answers = [[_next(worker) for worker in workers] for _ in range(rounds)]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    measured = [
        Measured(tuple(answer["seconds"] for answer in side), start, side[-1]["megabytes"])
        for side, start in zip(zip(*answers, strict=True), starts, strict=True)
    ]
    return Result(contest, *measured)


def _start(side: str, contest: Contest) -> "subprocess.Popen[str]":
    arguments = (side, contest.name, str(contest.batch), str(contest.size))
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


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
