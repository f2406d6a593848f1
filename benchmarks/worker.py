"""One side of a contest, in a process of its own: python -m benchmarks.worker SIDE CONTEST.

It prepares its work, does it once, and then once more for every line that it reads. To each it answers with a line of
JSON: the seconds that a step of it took, the peak of the memory so far in MB, and the device.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable

from benchmarks.contest import Contest


def main() -> None:
    """Runs until the input ends."""
    side, contest = importlib.import_module(f"benchmarks.{sys.argv[1]}"), Contest(**json.loads(sys.argv[2]))
    work = getattr(side, contest.name)(contest)

    def do() -> None:
        for _ in range(contest.steps - 1):
            work()
        side.wait(work())

    _answer(do, contest.steps, side.device)
    for _ in sys.stdin:
        _answer(do, contest.steps, side.device)


def _answer(work: Callable[[], object], steps: int, device: Callable[[], tuple[str, int | None]]) -> None:
    start = time.perf_counter()
    work()
    seconds = (time.perf_counter() - start) / steps
    name, peak_bytes = device()
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit if peak_bytes is None else peak_bytes / 1e6
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "device": name}), flush=True)


if __name__ == "__main__":
    main()
