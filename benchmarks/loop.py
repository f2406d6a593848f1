"""What training costs the host: the loop with steps that compute nothing, and all else as in a run."""

import contextlib
import dataclasses
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
from train.devices import Placement, choose_devices
from train.images import frame_splits
from train.learner import build_learner
from train.options import make_config
from train.program import compile_learner

SIZE, BATCH, IMAGES, EPOCHS = 128, 256, {"train": 2582, "validation": 287, "test": 394}, 12


def print_loop() -> None:
    """Print the times of a step and of an epoch."""
    keep_freed_memory()
    # So that what a device would compute, copies of the state for one, is not in the time of the thread that asks.
    jax.config.update("jax_cpu_enable_async_dispatch", True)
    print(f"SimpleCNN, {SIZE}x{SIZE}, batch {BATCH}; ms of the main thread, median of {EPOCHS - 2} epochs\n")
    times = _times()
    steps = IMAGES["train"] // BATCH
    for name, per in (("_train_epoch", steps), ("_save", 1), ("_evaluate_epoch", 1)):
        wall, thread = (1000 * statistics.median(of) / per for of in zip(*times[name][2:], strict=True))
        print(f"{name:20}{wall:10.2f} wall {thread:10.2f} busy")


def _times() -> dict[str, list[tuple[float, float]]]:
    config = make_config("simplecnn", batch_size=BATCH, epochs=EPOCHS)
    dataset = Dataset("noise", ("a", "b", "c", "d"), {name: _noise(count) for name, count in IMAGES.items()})
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        wall, thread = time.perf_counter(), time.thread_time()
        yield
        times[name].append((time.perf_counter() - wall, time.thread_time() - thread))

    with contextlib.ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory())
        held.enter_context(mock.patch.object(train.program, "make_steps", _do_nothing))
        for name in ("_train_epoch", "_save", "_evaluate_epoch"):
            held.enter_context(mock.patch.object(train.loop, name, timed(name)(getattr(train.loop, name))))
        run = Run(Path(folder))
        run.checkpoints.mkdir()
        learner = build_learner(config, dataset, frame_splits(config.training, dataset), run)
        train.loop.train(compile_learner(learner, choose_devices(Placement(devices=1), BATCH)), _stop)
    times["_train_epoch"] = [
        (a - c, b - d) for (a, b), (c, d) in zip(times["_train_epoch"], times["_save"], strict=True)
    ]
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


if __name__ == "__main__":
    print_loop()
