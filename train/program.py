"""Compile learners for their devices, for the loop to train. A single run is a program of one learner."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jaxcnn.data.batch import Batch, Shard
from jaxcnn.evaluation.counts import Tally
from train.devices import Parallel, compile_eval_step, compile_train_step, distribute, replicate, replicated_shapes
from train.learner import Learner, first_batches, make_steps, report_model
from train.processes import Agreement
from train.progress import report
from train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Program:
    """Learners that one compiled program trains.

    The state, tallies and logits are those of one learner, or have a leading axis of learners; only the functions below
    know which.

    Attributes:
        learners: each with its own run folder.
        initial: the state of each before its first step.
        train_step: `(state, a batch for each learner) -> (state, tally)`.
        eval_step: `(state, a batch for all) -> (tally, logits)`.
        join: the state on the devices, from those of the learners.
        part: the tally or the logits of the learner at a place, from those of all in the host's memory.
        states: the states of the learners at some places.
        like: for the learner at a place, arrays with the shapes and places on devices that a restored state is to have.
        shard: the part of each batch that this process reads.
        agree: from the number of this process's signal to the one that all processes act on.
    """

    learners: tuple[Learner, ...]
    initial: Sequence[TrainState]
    train_step: Callable[[TrainState, Sequence[Batch]], tuple[TrainState, Tally]]
    eval_step: Callable[[TrainState, Batch], tuple[Tally, Any]]
    join: Callable[[Sequence[TrainState]], TrainState]
    part: Callable[[Any, int], Any]
    states: Callable[[TrainState, Iterable[int]], dict[int, TrainState]]
    like: Callable[[int], Any]
    shard: Shard
    agree: Callable[[int], int]


def compile_learner(learner: Learner, parallel: Parallel) -> Program:
    """Build the program that trains one learner, with each batch shared by the devices."""
    report_model(learner)
    key = jax.random.wrap_key_data(replicate(parallel, jax.random.key_data(learner.key)))
    batch, evaluated = (distribute(parallel, of) for of in first_batches(learner, parallel.shard))
    # Compiled ahead of time, so that the time of an epoch holds no compilation. Python traces the steps on one core:
    # meanwhile, another compiles what draws the weights.
    start = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as background:
        drawn = background.submit(learner.draw)
        shapes = replicated_shapes(parallel, learner.shapes)
        train_step, eval_step = make_steps(learner, parallel.axis_name)
        train_step = compile_train_step(parallel, train_step, shapes, batch, key)
        eval_step = compile_eval_step(parallel, eval_step, shapes, evaluated)
    report(f"compiled   in {time.perf_counter() - start:.1f} s")
    state = replicate(parallel, drawn.result())
    return Program(
        learners=(learner,),
        initial=(state,),
        train_step=lambda state, batches: train_step(state, distribute(parallel, batches[0]), key),
        eval_step=lambda state, batch: eval_step(state, distribute(parallel, batch)),
        join=lambda states: replicate(parallel, states[0]),
        part=lambda whole, _: whole,
        states=lambda state, places: dict.fromkeys(places, state),
        like=lambda _: shapes,
        shard=parallel.shard,
        agree=Agreement(parallel).largest,
    )
