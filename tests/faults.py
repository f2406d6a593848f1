"""Kill a run many times, at any moment, and see that it ends as one that was never interrupted.

    python tests/faults.py [--kills 25] [--seed N]

A run is made once without a kill, and what it changes on the disk is recorded. Then, for each kill, a run is started
anew, killed with SIGKILL, resumed, and compared with the first: metrics, predictions, the best classifier and the last
checkpoints must have the same bits, and no temporary file may be left. A third of the kills hits at a random time, a
third within the making of a checkpoint, a third at any other change of a file.
"""

import argparse
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "plugins")]

from kills import assert_same_run, changes_of, killed_at, record_changes, train, training  # noqa: E402
from processes import Finished, Processes  # noqa: E402


def main() -> None:
    """Print a table with a line for each kill; the exit code is 1 if a run came to another end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if _kill_many(Path(folder), options.kills, random.Random(options.seed)) else 1)


def _kill_many(folder: Path, kills: int, chance: random.Random) -> bool:
    processes = Processes(folder)
    # The first run compiles; only the second shows how long a run takes that finds all compiled.
    for name in ("first", "expected"):
        record = partial(record_changes, folder / name, folder / f"{name}.txt")
        finished = train(processes, folder / name, before=record)
        assert finished.code == 0, finished.err
    assert_same_run(folder / "first", folder / "expected")
    changes = changes_of(folder / "expected.txt")
    saving = [moment for _, moment in changes if ".orbax-checkpoint-tmp" in moment.change]
    other = [moment for _, moment in changes if ".orbax-checkpoint-tmp" not in moment.change]
    print(f"{'killed':<102}{'resumed':<34}result", flush=True)
    same = 0
    for number in range(kills):
        run = folder / f"{number}"
        if number % 3 == 0:
            seconds = chance.uniform(0, changes[-1][0])
            where, killed = f"after {seconds:.2f} s", _kill_after(processes, run, seconds)
        else:
            moment = chance.choice(saving if number % 3 == 1 else other)
            where = f"before {moment.change}" + (f" ({moment.occurrence})" if moment.occurrence > 1 else "")
            killed = train(processes, run, before=killed_at(run, moment))
        if killed.code != -9:
            where += f" (had ended with {killed.code})"
        resumed, result = _resume(processes, run, folder / "expected")
        same += result == "same bits"
        print(f"{where:<102}{resumed:<34}{result}", flush=True)
    print(f"{same} of {kills} ended with the same bits")
    return same == kills


def _kill_after(processes: Processes, run: Path, seconds: float) -> Finished:
    started = processes.start(training(run))
    time.sleep(seconds)
    started.process.kill()
    return started.wait()


def _resume(processes: Processes, run: Path, expected: Path) -> tuple[str, str]:
    """Where the run went on, and how it ended."""
    finished = train(processes, run, "--resume")
    lines = [line for line in finished.out.splitlines() if line.startswith("resumed")]
    resumed = lines[0].removeprefix("resumed").strip() if lines else "from the beginning"
    if finished.code != 0:
        return resumed, f"exit {finished.code}: {finished.err.strip()[-200:]}"
    try:
        assert_same_run(run, expected)
    except AssertionError as error:
        return resumed, f"differs: {' '.join(str(error).split())[:200]}"
    return resumed, "same bits"


if __name__ == "__main__":
    main()
