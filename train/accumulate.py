"""A batch that goes through in micro-batches, where memory is too short for the whole (gradient accumulation)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcnn.evaluation.counts import Tally

# (batch statistics, examples) -> (mean gradient, batch statistics, sums).
GradientsOf = Callable[[Any, Any], tuple[Any, Any, Tally]]


def accumulate_gradients(
    gradients_of: GradientsOf, batch_stats: Any, examples: Any, count: int
) -> tuple[Any, Any, Tally]:
    """Mean gradient, last batch statistics and sums of `count` micro-batches, of which one at a time is in memory.

    That is the gradient of the whole batch where an image's loss depends on no other image: what is random belongs to
    the examples. BatchNorm breaks this: it normalises by the micro-batch, and updates its running statistics with each.

    Args:
        gradients_of: for a batch or a micro-batch; it is given the batch statistics that the one before left.
        batch_stats: before the first.
        examples: a tree of arrays (batch, ...).
        count: divides the batch; 1 leaves it whole.
    """
    if count == 1:
        return gradients_of(batch_stats, examples)

    def split(leaf: Array) -> Array:
        # Every count-th example: of a batch that is sharded over devices each micro-batch is, too, without a transfer.
        return jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1)

    def add(carry: tuple[Any, Any, Tally], part: Any) -> tuple[tuple[Any, Any, Tally], None]:
        gradients, batch_stats, counted = carry
        more, batch_stats, counted_more = gradients_of(batch_stats, part)
        return (jax.tree.map(jnp.add, gradients, more), batch_stats, counted + counted_more), None

    parts = jax.tree.map(split, examples)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    rest = jax.tree.map(lambda leaf: leaf[1:], parts)
    (gradients, batch_stats, counted), _ = jax.lax.scan(add, gradients_of(batch_stats, first), rest)
    return jax.tree.map(lambda leaf: leaf / count, gradients), batch_stats, counted
