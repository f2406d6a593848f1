"""What training costs the host: the loop with steps that compute nothing, and all else as in a run."""

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import train.loop
import train.program
from jaxcnn.cpu import keep_freed_memory
from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.evaluation.counts import Tally
from jaxcnn.runs.folder import Run
from train.images import frame_splits
from train.learner import build_learner
from train.machine.background import Behind
from train.machine.devices import Placement, choose_devices
from train.options import make_config
from train.program import compile_learner

SIZE, BATCH, IMAGES, EPOCHS = 128, 256, {"train": 2582, "validation": 287, "test": 394}, 12
PARTS = {
    "_train_epoch": "steps",
    "_save": "checkpoint",
    "_evaluate_epoch": "evaluation and scores",
    "wait": "waiting for what is written",
    "_write_checkpoints": "in the thread that writes: checkpoint",
    "_write_epoch": "in the thread that writes: best classifier, metrics",
}


def print_loop() -> None:
    """Print how long the main thread works in an epoch, and the one that writes behind it, and how much time passes."""
    keep_freed_memory()
    # What a device would do, such as copying the state, is not to be in the time of the thread that asks for it.
    jax.config.update("jax_cpu_enable_async_dispatch", True)
    print(f"SimpleCNN, {SIZE}x{SIZE}, batch {BATCH}, {IMAGES['train'] // BATCH} steps an epoch that compute nothing")
    print(f"{'ms in an epoch, the median of the epochs':57}{'busy':>12}{'passed':>12}{'least passed':>14}")
    for on_device in (False, True):
        times = _times(on_device=on_device)
        print("an epoch as one program" if on_device else "a step at a time")
        for name, part in PARTS.items():
            busy, passed = zip(*times[name][2:], strict=True)
            row = (1000 * number for number in (statistics.median(busy), statistics.median(passed), min(passed)))
            print("    {:53}{:12.2f}{:12.2f}{:14.2f}".format(part, *row))


def _times(*, on_device: bool) -> dict[str, list[tuple[float, float]]]:
    """Of each part and epoch the seconds that the main thread is busy, and that pass."""
    config = make_config("simplecnn", batch_size=BATCH, epochs=EPOCHS)
    dataset = Dataset("noise", ("a", "b", "c", "d"), {name: _noise(count) for name, count in IMAGES.items()})
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        busy, passed = time.thread_time(), time.perf_counter()
        yield
        times[name].append((time.thread_time() - busy, time.perf_counter() - passed))

    with contextlib.ExitStack() as held:
        run = Run(Path(held.enter_context(tempfile.TemporaryDirectory())))
        run.checkpoints.mkdir()
        held.enter_context(contextlib.redirect_stdout(io.StringIO()))
        held.enter_context(mock.patch.object(train.program, "make_steps", _do_nothing))
        for name in PARTS:
            owner = train.loop if hasattr(train.loop, name) else Behind
            held.enter_context(mock.patch.object(owner, name, timed(name)(getattr(owner, name))))
        learner = build_learner(config, dataset, frame_splits(config.training, dataset), run)
        devices = choose_devices(Placement(devices=1), BATCH)
        train.loop.train(compile_learner(learner, devices, on_device=on_device), _stop)
    # A checkpoint is saved among the steps, and waits first. Once more is waited at the end.
    for inner, outer in (("_save", "_train_epoch"), ("wait", "_save")):
        pairs = zip(times[outer], times[inner], strict=False)
        times[outer] = [(busy - less, passed - fewer) for (busy, passed), (less, fewer) in pairs]
    return times


def _noise(count: int) -> Split:
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, SIZE, SIZE, 1), np.uint8)
    return Split(images, np.arange(count, dtype=np.int32) % 4, tuple(map(str, range(count))))


def _do_nothing(*_: Any) -> tuple[Any, Any]:
    def counted(batch: Any) -> Tally:
        return Tally(jnp.float32(len(batch.labels)), jnp.eye(4, dtype=jnp.int32))

    def train_step(state: Any, batch: Any, _: jax.Array) -> Any:
        return dataclasses.replace(state, step=state.step + 1), counted(batch)

    return train_step, lambda _, batch: (counted(batch), jnp.zeros((len(batch.labels), 4)))


def _stop(_: int, reason: str) -> None:
    raise RuntimeError(reason)
