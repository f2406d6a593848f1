"""Dropout whose masks belong to the examples, not to the shape of the batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxcnn.models.example_keys import example_places, keys_at


class Dropout(nn.Module):
    """Dropout (Srivastava et al., 2014), scaled while training (inverted) as `flax.linen.Dropout`.

    That module draws one mask for the whole batch; this one draws a mask an example, by its key (`example_keys.py`), so
    that a batch spread over devices drops what it would drop on one, and one that comes in parts what it would drop
    whole.

    Attributes:
        rate: share of the values that become 0, in [0, 1]. It may be traced, so that `vmap` trains models of several
            rates at once; a Python 0 needs no key.
        axis_name: mapped axis that the batch is spread over, or None.
        places: of the examples in the global batch; None where they are all of it, or of this device's share, in order.
    """

    rate: float | Float[Array, ""]
    axis_name: str | None = None
    places: Int[Array, " batch"] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], *, train: bool) -> Float[Array, "batch ..."]:
        """Return `x`, with `train` dropped and scaled; then it needs the `dropout` key, unless the rate is 0.

        Raises:
            ValueError: the rate is a number outside of [0, 1]; a traced one is not looked at.
        """
        if isinstance(self.rate, int | float):
            if not 0 <= self.rate <= 1:
                raise ValueError(f"a dropout rate lies in [0, 1], got {self.rate}")
            if self.rate == 0:
                return x
        if not train:
            return x
        kept_share = 1 - jnp.asarray(self.rate, jnp.float32)

        def draw(key: PRNGKeyArray) -> Array:
            return jax.random.bernoulli(key, kept_share, x.shape[1:])

        places = example_places(len(x), self.axis_name) if self.places is None else self.places
        kept = jax.vmap(draw)(keys_at(self.make_rng("dropout"), places))
        # Where all is dropped, 1 / 0 must not come near x: its gradient would be no number.
        scale = jnp.where(kept, 1 / jnp.where(kept_share > 0, kept_share, 1), 0)
        return x * scale.astype(x.dtype)
