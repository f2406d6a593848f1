"""Feed a program: with batches that are sent ahead, or with the order alone where the examples lie on the devices."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, pairwise
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32

from jaxcnn.data.batch import Batch, Shard
from jaxcnn.data.pipeline import evaluation_batches, training_batches, training_order
from train.learner import Learner
from train.machine.devices import Placement
from train.machine.progress import report

# The splits that each epoch ends with.
EVALUATED = ("validation", "test")

_AHEAD = 2
# The share of a device's memory that the examples may take for `auto` to put them there: the steps need the rest.
_SHARE = 0.1

# From an epoch and the number of its steps that are done: the rest of it in pieces, each with its number of steps.
Feed = Callable[[int, int], Iterator[tuple[int, Any]]]


def sent_ahead(items: Iterable[Any], send: Callable[[Any], Any]) -> Iterator[Any]:
    """What `send` makes of each item, in another thread, before it is asked for."""
    left = iter(items)

    def next_one() -> Any:
        return None if (item := next(left, None)) is None else send(item)

    with ThreadPoolExecutor(max_workers=1) as thread:
        ahead = deque(thread.submit(next_one) for _ in range(_AHEAD))
        while (sent := ahead.popleft().result()) is not None:
            ahead.append(thread.submit(next_one))
            yield sent


def feed_batches(
    learners: Sequence[Learner], shard: Shard, send: Callable[[Sequence[Batch]], Batch], epoch: int, done: int
) -> Iterator[tuple[int, Any]]:
    """Feed a step at a time, with the batches of all learners."""
    batches = (
        training_batches(
            learner.training,
            learner.config.training.batch_size,
            seed=learner.config.training.seed,
            epoch=epoch,
            start=done,
            shard=shard,
        )
        for learner in learners
    )
    return ((1, batch) for batch in sent_ahead(zip(*batches, strict=True), send))


def feed_orders(learners: Sequence[Learner], send: Callable[[np.ndarray], Any]) -> Feed:
    """Feed many steps at a time, up to the next checkpoint, with the places of their examples in `join_examples`."""
    arrays = list(_arrays(learners))
    # Grain takes 13 us an image to say where it comes in an epoch: the next epoch's order is drawn during this one.
    thread, drawn = ThreadPoolExecutor(max_workers=1), dict[int, Future[np.ndarray]]()

    def draw(epoch: int) -> Int32[np.ndarray, "steps learners batch"]:
        orders = []
        for learner in learners:
            size, seed = learner.config.training.batch_size, learner.config.training.seed
            order = training_order(learner.training, size, seed=seed, epoch=epoch)
            places = np.stack([order[number] for number in range(len(order))])
            views, numbers = np.divmod(places, len(learner.training))
            own = np.array([arrays.index(_name(view)) for view in learner.training.inputs], np.int32)
            orders.append(own[views] * np.int32(len(learner.training)) + numbers)
        return np.stack(orders, axis=1)

    def feed(epoch: int, done: int) -> Iterator[tuple[int, Any]]:
        order = (drawn.pop(epoch, None) or thread.submit(draw, epoch)).result()
        drawn[epoch + 1] = thread.submit(draw, epoch + 1)
        for start, end in pairwise([done, *(end for end in saved_steps(learners[0]) if end > done)]):
            yield end - start, send(order[start:end])

    return feed


def saved_steps(learner: Learner) -> list[int]:
    """The steps of an epoch that leave a checkpoint, from 1."""
    every, steps = learner.config.training.checkpoint_every, learner.steps_per_epoch
    return [*range(every, steps, every), steps]


def join_examples(learners: Sequence[Learner]) -> tuple[np.ndarray, np.ndarray]:
    """All views of the examples that the learners are trained on, one after the other, and the labels of one view."""
    inputs = list(_arrays(learners).values())
    return inputs[0] if len(inputs) == 1 else np.concatenate(inputs), learners[0].training.labels


def _arrays(learners: Sequence[Learner]) -> dict[Any, np.ndarray]:
    return {_name(view): view for learner in learners for view in learner.training.inputs}


def _name(view: np.ndarray) -> Any:
    """Of an array that was read from a file, the file: each learner has opened it by itself."""
    return getattr(view, "filename", None) or id(view)


def lie_on_device(learners: Sequence[Learner], placement: Placement, sharing: int = 1) -> bool:
    """Whether the examples are to lie on the device: where the options leave it open, on an accelerator that they fit.

    Args:
        learners: that are trained together.
        placement: the options.
        sharing: devices that share each batch; where they are several, or run by pmap, batches are sent ahead.
    """
    choice = placement.epoch_on_device
    if sharing > 1 or placement.parallel == "pmap":
        if choice == "yes":
            report("note       no epoch on the device, since devices share each batch: batches are sent ahead")
        return False
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    evaluated = [view for name in EVALUATED for view in learners[0].examples[name].inputs]
    needed = sum(view.nbytes for view in [*_arrays(learners).values(), *evaluated])
    fit = jax.default_backend() != "cpu" and needed <= _SHARE * limit
    return fit if choice == "auto" else choice == "yes"


def over_order(step: Callable[..., Any]) -> Callable[..., Any]:
    """Make one program of many steps: `(state, order, examples, *rest) -> (state, tally of each step)`.

    Args:
        step: `(state, batch, *rest) -> (state, tally)`.
    """

    def steps(state: Any, order: jax.Array, examples: tuple[jax.Array, jax.Array], *rest: Any) -> Any:
        inputs, labels = examples

        def one(state: Any, places: jax.Array) -> Any:
            return step(state, Batch(inputs[places], labels[places % len(labels)], None), *rest)

        return jax.lax.scan(one, state, order)

    return steps


def over_batches(step: Callable[..., Any]) -> Callable[..., Any]:
    """Make one program of the evaluation of many batches: `(state, batches) -> (tally, outputs) of each`."""
    return lambda state, batches: jax.lax.map(lambda batch: step(state, batch), batches)


def evaluated_batches(learner: Learner, names: Sequence[str], shard: Shard) -> Iterator[Batch]:
    """The batches of some splits, one split after the other."""
    size = learner.config.training.batch_size
    return chain.from_iterable(evaluation_batches(learner.examples[name], size, shard) for name in names)


def stacked(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """So many batches in one, with an axis of batches; the last is filled up with copies."""
    while some := list(islice(batches, count)):
        yield jax.tree.map(lambda *leaves: np.stack(leaves), *some, *some[-1:] * (count - len(some)))
