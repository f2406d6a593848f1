"""A random key for each example, so that a batch draws the same numbers however it is spread over devices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray


def example_keys(key: PRNGKeyArray, batch_size: int, axis_name: str | None = None) -> Key[Array, " {batch_size}"]:
    """One key per example: `key` with the example's place in the global batch folded in.

    Under a mapped axis (`pmap`, `shard_map`, or `vmap` with that `axis_name`) each share of the batch gets the keys
    that its examples would have in the whole batch on one device.

    Args:
        key: the same on all devices, as made by `jax.random.key`.
        batch_size: examples in this share; all shares have as many.
        axis_name: mapped axis that the batch is spread over, in order, or None.
    """
    places = jnp.arange(batch_size, dtype=jnp.int32)
    if axis_name is not None:
        places += jax.lax.axis_index(axis_name) * batch_size
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
