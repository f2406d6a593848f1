"""From a split in memory to batches: a training order that is a function of (seed, epoch), and exact evaluation."""

from collections.abc import Iterator
from typing import Any

import flax.struct
import grain
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxcnn.data.dataset import Split


@flax.struct.dataclass
class Batch:
    """What a step gets.

    Attributes:
        images: uint8 (batch, height, width, 1); they travel to the device as bytes, a quarter of their size as floats.
        labels: int32 (batch,).
        mask: bool (batch,), false for what only fills up the batch.
    """

    images: Any
    labels: Any
    mask: Any


def to_unit_range(images: UInt8[Array | np.ndarray, "batch height width 1"]) -> Float[Array, "batch height width 1"]:
    """The models' input: float32 in [0, 1]."""
    return jnp.asarray(images, jnp.float32) / 255.0


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Full batches in the split.

    Raises:
        ValueError: there is none.
    """
    if len(split) < batch_size:
        raise ValueError(f"batch size {batch_size} is larger than the {len(split)} training images")
    return len(split) // batch_size


def training_batches(split: Split, batch_size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
    """Full batches in the order of (seed, epoch); the rest, other images each epoch, is left out."""
    # One 32-bit seed from two numbers, so that (0, 1) and (1, 0) differ.
    order_seed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    batches = (
        grain.MapDataset.range(len(split))
        .shuffle(seed=order_seed)
        .batch(batch_size, drop_remainder=True)
        .map(lambda chosen: _take(split, chosen, batch_size))
    )
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))


def evaluation_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Every image once, in order; the last batch is padded with copies of an image, which the mask leaves out."""
    for start in range(0, len(split), batch_size):
        yield _take(split, np.arange(start, min(start + batch_size, len(split))), batch_size)


def _take(split: Split, chosen: np.ndarray, batch_size: int) -> Batch:
    padded = np.concatenate([chosen, np.repeat(chosen[:1], batch_size - len(chosen))])
    return Batch(split.images[padded], split.labels[padded], np.arange(batch_size) < len(chosen))
