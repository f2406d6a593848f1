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


def training_batches(
    examples: Examples, batch_size: int, *, seed: int, epoch: int, start: int = 0, shard: Shard = WHOLE
) -> Iterator[Batch]:
    """Yield full batches in the order of (seed, epoch), from number `start` on, and drop an incomplete last batch.

    Of an example with several views each epoch takes one, by (seed, epoch) as well.
    """
    # One 32-bit seed from two numbers, so that (0, 1) and (1, 0) differ.
    order_seed, view_seed = (int(word) for word in np.random.SeedSequence((seed, epoch)).generate_state(2))
    views = np.random.default_rng(view_seed).integers(len(examples.inputs), size=len(examples))
    mine = shard.of(batch_size)
    batches = (
        grain.MapDataset.range(len(examples))
        .shuffle(seed=order_seed)
        .batch(batch_size, drop_remainder=True)[start:]
        .map(lambda chosen: _training_batch(examples, chosen[mine], views[chosen[mine]]))
    )
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))


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


def _training_batch(examples: Examples, chosen: Int[np.ndarray, " k"], views: Int[np.ndarray, " k"]) -> Batch:
    return Batch(_take(examples, chosen, views), examples.labels[chosen], np.full(len(chosen), True))


def _take(
    examples: Examples, chosen: Int[np.ndarray, " k"], views: Int[np.ndarray, " k"]
) -> Shaped[np.ndarray, "k ..."]:
    return np.stack([examples.inputs[view][place] for view, place in zip(views, chosen, strict=True)])
