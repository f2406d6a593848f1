"""Make batches of examples in memory: a training order determined by (seed, epoch), and exact evaluation."""

from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int, Shaped

from jaxcnn.data.batch import WHOLE, Batch, Examples, Shard


def steps_per_epoch(examples: Examples, batch_size: int) -> int:
    """Count the full batches in an epoch.

    Raises:
        ValueError: there is none.
    """
    if len(examples) < batch_size:
        raise ValueError(f"batch size {batch_size} is larger than the {len(examples)} training images")
    return len(examples) // batch_size


def training_order(examples: Examples, batch_size: int, *, seed: int, epoch: int) -> "grain.MapDataset[np.ndarray]":
    """The places of the examples of each full batch, int32 (batch,), by (seed, epoch).

    They are places among the examples of all views, one view after the other: view * len(examples) + number.
    Of an example with several views each epoch takes one. A batch's places are computed when they are asked for.
    """
    # One 32-bit seed from two numbers, so that (0, 1) and (1, 0) differ.
    order_seed, view_seed = (int(word) for word in np.random.SeedSequence((seed, epoch)).generate_state(2))
    count = len(examples)
    views = np.random.default_rng(view_seed).integers(len(examples.inputs), size=count)
    places = (views * count + np.arange(count)).astype(np.int32)
    shuffled = grain.MapDataset.range(count).shuffle(seed=order_seed).batch(batch_size, drop_remainder=True)
    return shuffled.map(lambda chosen: places[chosen])


def training_batches(
    examples: Examples, batch_size: int, *, seed: int, epoch: int, start: int = 0, shard: Shard = WHOLE
) -> Iterator[Batch]:
    """Yield full batches in the order of (seed, epoch), from number `start` on, and drop an incomplete last batch."""
    order, mine = training_order(examples, batch_size, seed=seed, epoch=epoch), shard.of(batch_size)
    for number in range(start, len(order)):
        views, chosen = np.divmod(order[number][mine], len(examples))
        yield Batch(_take(examples, chosen, views), examples.labels[chosen], None)


def evaluation_batches(examples: Examples, batch_size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
    """Yield every example once, in order and in all its views.

    The last batch is filled up with copies of its first example, which the mask leaves out.
    """
    mine = shard.of(batch_size)
    for start in range(0, len(examples), batch_size):
        places = np.arange(start, start + batch_size)
        inside = places < len(examples)
        chosen = np.where(inside, places, start)[mine]
        views = np.arange(len(examples.inputs))
        inputs = _take(examples, np.repeat(chosen, len(views)), np.tile(views, len(chosen)))
        yield Batch(inputs, examples.labels[chosen], inside[mine])


def _take(
    examples: Examples, chosen: Int[np.ndarray, " k"], views: Int[np.ndarray, " k"]
) -> Shaped[np.ndarray, "k ..."]:
    if len(examples.inputs) == 1:  # Three times as fast.
        return examples.inputs[0][chosen]
    return np.stack([examples.inputs[view][place] for view, place in zip(views, chosen, strict=True)])
