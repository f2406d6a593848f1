"""Compile learners for their devices, for the loop to train. A single run is a program of one learner."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from jaxcnn.cpu import release_freed_memory
from jaxcnn.data.batch import Batch, Shard
from jaxcnn.evaluation.counts import Tally
from train.feed import (
    EVALUATED,
    Feed,
    evaluated_batches,
    feed_batches,
    feed_orders,
    join_examples,
    over_batches,
    over_order,
    saved_steps,
    sent_ahead,
    stacked,
)
from train.learner import Learner, first_batches, make_steps, report_model
from train.machine.devices import (
    Parallel,
    compile_eval_step,
    compile_train_step,
    distribute,
    replicate,
    replicated_shapes,
)
from train.machine.processes import Agreement
from train.machine.progress import report
from train.state import TrainState, copy_state, finite_parts

AnyStep = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How learners lie on their devices.

    The state, tallies and outputs are those of one learner, or have an axis of learners; only these functions know.

    Attributes:
        batches: sends a batch for each learner.
        order: sends int32 (steps, learner, batch).
        evaluated: sends a batch for all.
        shared: sends what each device needs whole.
        compile_train: compiles a training step for arguments like these; the first, the state, is used again.
        compile_eval: compiles an evaluation step.
        join: sends the state, from those of the learners.
        states: the states of the learners at some places, as copies: the next step takes the state's memory.
        like: for the learner at a place, arrays with the shapes and places on devices that a restored state is to have.
        finite: by the name of each part of the state, whether all its numbers are finite.
        part: what the learner at a place has of arrays (step, ...) in the host's memory.
        shard: the part of each batch that this process reads.
        agree: from the number of this process's signal to the one that all processes act on.
    """

    batches: Callable[[Sequence[Batch]], Batch]
    order: Callable[[np.ndarray], jax.Array]
    evaluated: Callable[[Batch], Batch]
    shared: Callable[[Any], Any]
    compile_train: Callable[..., Any]
    compile_eval: Callable[..., Any]
    join: Callable[[Sequence[TrainState]], TrainState]
    states: Callable[[TrainState, Iterable[int]], dict[int, TrainState]]
    like: Callable[[int], Any]
    finite: Callable[[TrainState], Any]
    part: Callable[[Any, int], Any]
    shard: Shard
    agree: Callable[[int], int]


@dataclasses.dataclass(frozen=True)
class Steps:
    """The compiled steps, and what feeds them.

    Attributes:
        feed: from an epoch and the number of its steps that are done to what is left of it, in pieces, each with its
            number of steps.
        train: `(state, piece) -> (state, tally of each step)`.
        pieces: the images of some splits, in pieces of one or many batches.
        evaluate: `(state, piece) -> (tally of each batch, outputs of each batch)`.
        part: of the learner at a place, the tallies or outputs of a piece from those of all in the host's memory, with
            a leading axis of steps or batches.
        memory: that the training step needs, `jax.stages.Compiled.memory_analysis()`.
    """

    feed: Feed
    train: Callable[[TrainState, Any], tuple[TrainState, Tally]]
    pieces: Callable[[Sequence[str]], Iterator[Any]]
    evaluate: Callable[[TrainState, Any], tuple[Tally, Any]]
    part: Callable[[Any, int], Any]
    memory: Any


@dataclasses.dataclass(frozen=True)
class Program:
    """Learners that one compiled program trains.

    Attributes:
        learners: each with its own run folder.
        initial: the state of each before its first step.
    """

    learners: tuple[Learner, ...]
    initial: Sequence[TrainState]
    layout: Layout
    steps: Steps


def compile_learner(learner: Learner, parallel: Parallel, *, on_device: bool = False) -> Program:
    """Build the program that trains one learner, with each batch shared by the devices.

    With `on_device` the examples are kept there, which must be one device; see `compile_epoch`.
    """
    report_model(learner)
    key = jax.random.wrap_key_data(replicate(parallel, jax.random.key_data(learner.key)))
    shapes = replicated_shapes(parallel, learner.shapes)
    layout = Layout(
        batches=lambda batches: distribute(parallel, batches[0]),
        order=lambda order: replicate(parallel, order[:, 0]),
        evaluated=lambda batch: distribute(parallel, batch),
        shared=lambda tree: replicate(parallel, tree),
        compile_train=functools.partial(compile_train_step, parallel),
        compile_eval=functools.partial(compile_eval_step, parallel),
        join=lambda states: replicate(parallel, states[0]),
        states=lambda state, places: dict.fromkeys(places, copy_state(state)),
        like=lambda _: shapes,
        finite=jax.jit(finite_parts),
        part=lambda whole, _: whole,
        shard=parallel.shard,
        agree=Agreement(parallel).largest,
    )
    # Compiled ahead of time, so that the time of an epoch holds no compilation. Python traces the steps on one core:
    # meanwhile, another compiles what draws the weights.
    start = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as background:
        drawn = background.submit(learner.draw)
        train_step, eval_step = make_steps(learner, parallel.axis_name)
        compile_ = compile_epoch if on_device else compile_steps
        steps = compile_((learner,), layout, train_step, eval_step, shapes, key)
    report(f"compiled   in {time.perf_counter() - start:.1f} s")
    return Program((learner,), (replicate(parallel, drawn.result()),), layout, steps)


def compile_steps(
    learners: Sequence[Learner], layout: Layout, train_step: AnyStep, eval_step: AnyStep, shapes: Any, *constants: Any
) -> Steps:
    """Compile one step each, which are fed with batches that are sent ahead.

    Args:
        train_step: `(state, batch, *constants) -> (state, tally)`.
        eval_step: `(state, batch) -> (tally, outputs)`.
        constants: on the devices.
    """
    batch, evaluated = first_batches(learners[0], layout.shard)
    train = layout.compile_train(train_step, shapes, layout.batches([batch] * len(learners)), *constants)
    evaluate = layout.compile_eval(eval_step, shapes, layout.evaluated(evaluated))
    release_freed_memory()

    def part(whole: Any, place: int) -> Any:
        return layout.part(jax.tree.map(lambda leaf: leaf[np.newaxis], whole), place)

    return Steps(
        feed=functools.partial(feed_batches, learners, layout.shard, layout.batches),
        train=lambda state, batch: train(state, batch, *constants),
        pieces=lambda names: sent_ahead(evaluated_batches(learners[0], names, layout.shard), layout.evaluated),
        evaluate=evaluate,
        part=part,
        memory=train.memory_analysis(),
    )


def compile_epoch(
    learners: Sequence[Learner], layout: Layout, train_step: AnyStep, eval_step: AnyStep, shapes: Any, *constants: Any
) -> Steps:
    """Compile all steps between two checkpoints as one program, and the evaluation of an epoch as another.

    The examples lie on the device, or on each device that has learners to itself: what the program is fed with is their
    order. For the arguments see `compile_steps`.
    """
    first = learners[0]
    examples = layout.shared(join_examples(learners))

    @functools.cache
    def train(steps: int) -> Any:
        order = np.zeros((steps, len(learners), first.config.training.batch_size), np.int32)
        return layout.compile_train(over_order(train_step), shapes, layout.order(order), examples, *constants)

    for start, end in pairwise([0, *saved_steps(first)]):
        train(end - start)
    together = sum(math.ceil(len(first.examples[name]) / first.config.training.batch_size) for name in EVALUATED)

    def pieces(names: Sequence[str]) -> Iterator[Any]:
        return sent_ahead(stacked(evaluated_batches(first, names, layout.shard), together), layout.evaluated)

    (after_an_epoch,) = pieces(EVALUATED)
    return Steps(
        feed=feed_orders(learners, layout.order),
        train=lambda state, order: train(len(order))(state, order, examples, *constants),
        pieces=lambda names: iter([after_an_epoch]) if names == EVALUATED else pieces(names),
        evaluate=layout.compile_eval(over_batches(eval_step), shapes, after_an_epoch),
        part=layout.part,
        memory=train(saved_steps(first)[0]).memory_analysis(),
    )
