"""One side of a contest, in a process of its own: python -m benchmarks.worker CONTEST.

It prepares its work, does one step, and then a piece of work for every line that it reads. To each it answers with a
line of JSON: the seconds that a step of it took, the peak of the memory so far in MB, and the device.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable

from benchmarks.contest import Contest
from benchmarks.peers import PEERS


def main() -> None:
    """Runs until the input ends."""
    contest = Contest(**json.loads(sys.argv[1]))
    side = importlib.import_module(f"benchmarks.{PEERS[contest.peer].module}")
    work = getattr(side, contest.name)(contest)

    def do(steps: int) -> None:
        for _ in range(steps - 1):
            work()
        side.wait(work())

    _answer(do, 1, side.device)
    for _ in sys.stdin:
        _answer(do, contest.steps, side.device)


def _answer(work: Callable[[int], None], steps: int, device: Callable[[], tuple[str, int | None]]) -> None:
    start = time.perf_counter()
    work(steps)
    seconds = (time.perf_counter() - start) / steps
    name, peak_bytes = device()
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit if peak_bytes is None else peak_bytes / 1e6
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "device": name}), flush=True)


if __name__ == "__main__":
    main()
