"""A run that is killed with SIGKILL at a chosen moment of its life, and what must be left in the end.

A moment is just before the process does something to a file of its run; `sys.addaudithook` tells of that. What Orbax
writes in C++ (the arrays) tells nothing, but lies between the making of a checkpoint's temporary folder and its
renaming, which do.
"""

import dataclasses
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as orbax
from processes import Finished, Processes, command

from jaxcnn.runs.folder import Run, read_epochs, read_predictions

# 48 images of each split, 44 of them left to train on: 5 steps of 8 an epoch, checkpoints after 2, 4 and 5 of them.
OPTIONS = ["--max-images", "48", "--epochs", "2", "--batch-size", "8", "--dropout", "0.3"]
OPTIONS += ["--checkpoint-every", "2", "--ema", "0.9", "--tta", "flip", "--label-smoothing", "0.1"]

_CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


@dataclasses.dataclass(frozen=True)
class Moment:
    """Just before a process does `change` for the `occurrence`-th time (from 1); see `changes_of`."""

    change: str
    occurrence: int = 1


def train(processes: Processes, folder: Path, *more: str, before: Callable[[], Any] | None = None) -> Finished:
    """`python -m train tiny` in a process of its own, to its end."""
    return processes.start(training(folder, *more), before=before).wait()


def training(folder: Path, *more: str) -> Callable[[], None]:
    """`python -m train tiny`, to be called in a process of its own."""
    return command("train.__main__", "tiny", "--run-dir", str(folder), *OPTIONS, *more)


def record_changes(folder: Path, record: Path) -> None:
    """From here on, write each change of a file in the folder to the record, with the time since now in seconds."""
    handle = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    start = time.monotonic()
    _watch(folder, lambda change: os.write(handle, f"{time.monotonic() - start:.3f} {change}\n".encode()))


def kill_before(folder: Path, moment: Moment) -> None:
    """From here on, wait for the moment to kill this process."""
    _do_before(folder, moment, lambda: os.kill(os.getpid(), signal.SIGKILL))


def hold_before(folder: Path, moment: Moment, until: Path) -> None:
    """From here on, wait for the moment to stop there until a file exists."""

    def hold() -> None:
        while not until.exists():
            time.sleep(0.01)

    _do_before(folder, moment, hold)


def _do_before(folder: Path, moment: Moment, act: Callable[[], Any]) -> None:
    seen: Counter[str] = Counter()

    def see(change: str) -> None:
        seen[change] += 1
        if change == moment.change and seen[change] == moment.occurrence:
            act()

    _watch(folder, see)


def _watch(folder: Path, see: Callable[[str], Any]) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if path.startswith(str(folder)):
            see(f"{event} {_without_chance(os.path.relpath(path, folder))}")
        elif event in ("os.remove", "os.rmdir") and not os.path.isabs(path):
            # rmtree goes down by file descriptors; what it takes off has a name alone.
            see(f"{event} {_without_chance(path)}")

    sys.addaudithook(hook)


def _without_chance(path: str) -> str:
    """The path without what this project and Orbax draw by chance."""
    return re.sub(r"[0-9a-f]{32}", "*", re.sub(r"(^|/)(\.\w+)\.jaxcnn-tmp-\w{8}", r"\1\2-*", path))


def changes_of(record: Path) -> list[tuple[float, Moment]]:
    """The moments that were recorded, each with its time."""
    seen: Counter[str] = Counter()
    moments = []
    for line in record.read_text("utf-8").splitlines():
        seconds, change = line.split(" ", 1)
        seen[change] += 1
        moments.append((float(seconds), Moment(change, seen[change])))
    return moments


def killed_at(folder: Path, moment: Moment) -> Callable[[], None]:
    """What a process that is to be killed does first."""
    return partial(kill_before, folder, moment)


def held_at(folder: Path, moment: Moment, until: Path) -> Callable[[], None]:
    """What a process that is to stop until a file exists does first."""
    return partial(hold_before, folder, moment, until)


def assert_same_run(folder: Path, expected: Path) -> None:
    """See that two runs have ended with the same bits, and that nothing else lies about."""
    run, other = Run(folder), Run(expected)
    assert _without_times(read_epochs(run)) == _without_times(read_epochs(other))
    for split in ("train", "validation", "test"):
        found, wanted = (dataclasses.asdict(read_predictions(each, split)) for each in (run, other))
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])
    assert run.best.joinpath("manifest.json").read_bytes() == other.best.joinpath("manifest.json").read_bytes()
    _assert_same_arrays(run.best, other.best)
    steps = sorted(path.name for path in other.checkpoints.iterdir())
    assert sorted(path.name for path in run.checkpoints.iterdir()) == steps
    for step in steps:
        _assert_same_arrays(run.checkpoints / step, other.checkpoints / step)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in expected.iterdir())
    assert len(list(run.predictions("").parent.iterdir())) == 3


def _without_times(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in epoch.items() if k not in ("seconds", "images_per_second", "overall_images_per_second")}
        for epoch in epochs
    ]


def _assert_same_arrays(folder: Path, expected: Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, load_arrays(folder), load_arrays(expected))


def load_arrays(folder: Path) -> Any:
    """The arrays of a checkpoint, as the files have them."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    stored = orbax.metadata(folder.absolute()).metadata
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored)
    return orbax.load(folder.absolute(), like)
