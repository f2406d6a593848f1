"""One side of a contest, in a process of its own: python -m benchmarks.worker SIDE NAME BATCH SIZE.

It prepares its work, does it once, and then once more for every line that it reads. To each it answers with a line of
JSON: the seconds that it took, and the peak of the process's memory so far, in MB.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable


def main() -> None:
    """Runs until the input ends."""
    side, name, batch, size = sys.argv[1:]
    work = getattr(importlib.import_module(f"benchmarks.{side}"), name)(int(batch), int(size))
    _answer(work)
    for _ in sys.stdin:
        _answer(work)


def _answer(work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(json.dumps({"seconds": seconds, "megabytes": megabytes}), flush=True)


if __name__ == "__main__":
    main()
