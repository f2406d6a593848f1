"""A random key for each example, so that a batch draws the same numbers in whatever parts it is computed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key, PRNGKeyArray


def keys_at(key: PRNGKeyArray, places: Int[Array, " batch"]) -> Key[Array, " batch"]:
    """The keys of the examples at these places in the global batch, whichever of them are here.

    Args:
        key: the same on all devices, as made by `jax.random.key`.
        places: see `example_places`.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)


def example_places(batch_size: int, axis_name: str | None = None) -> Int32[Array, " {batch_size}"]:
    """The place of each example of this share in the global batch.

    Under a mapped axis (`pmap`, `shard_map`, or `vmap` with that `axis_name`) each share of the batch has the places,
    and so the keys, that its examples would have in the whole batch on one device.

    Args:
        batch_size: examples in this share; all shares have as many.
        axis_name: mapped axis that the batch is spread over, in order, or None.
    """
    places = jnp.arange(batch_size, dtype=jnp.int32)
    if axis_name is not None:
        places += jax.lax.axis_index(axis_name) * batch_size
    return places
