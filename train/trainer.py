"""A run, ready to go: what it is trained with, compiled for its devices."""

import dataclasses
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import jax

from jaxcnn.data.dataset import Split
from jaxcnn.runs.folder import Run
from train.config import TrainConfig
from train.devices.parallel import (
    Parallel,
    compile_eval_step,
    compile_train_step,
    distribute,
    replicate,
    replicated_shapes,
)
from train.framing import frame_splits
from train.progress import say
from train.setup import Setup, first_batches, make_steps, prepare, say_model
from train.state import TrainState
from train.step import EvalStep, TrainStep


@dataclasses.dataclass(frozen=True)
class Trainer(Setup):
    """A run, ready to go.

    Attributes:
        parallel: the devices.
        train_step: compiled.
        eval_step: compiled.
    """

    parallel: Parallel
    train_step: TrainStep
    eval_step: EvalStep


def build_trainer(
    config: TrainConfig, splits: Mapping[str, Split], classes: tuple[str, ...], run: Run, parallel: Parallel
) -> tuple[Trainer, TrainState]:
    """The trainer, and the state before the first step.

    Raises:
        UserError: see `prepare`.
    """
    setup, state = prepare(config, splits, frame_splits(config, splits), classes, run)
    say_model(setup, state.shapes)
    key = jax.random.wrap_key_data(replicate(parallel, jax.random.key_data(setup.key)))
    batch, evaluated = (distribute(parallel, of) for of in first_batches(setup, parallel.shard))
    # Compiled ahead of time, so that the time of an epoch holds no compilation. Python traces the steps on one core:
    # meanwhile, another compiles what draws the weights.
    start = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as background:
        drawn = background.submit(state.compute)
        shapes = replicated_shapes(parallel, state.shapes)
        train_step, eval_step = make_steps(setup, parallel.axis_name)
        train_step = compile_train_step(parallel, train_step, shapes, batch, key)
        eval_step = compile_eval_step(parallel, eval_step, shapes, evaluated)
    say(f"compiled   in {time.perf_counter() - start:.1f} s")
    trainer = Trainer(**vars(setup) | {"key": key}, parallel=parallel, train_step=train_step, eval_step=eval_step)
    return trainer, replicate(parallel, drawn.result())
