"""What a training step reads and returns."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """All that changes while training; the model and the optimizer are functions and live outside.

    The fields are annotated with Any, since a tree transformation may put anything in the place of an array.

    Attributes:
        step: int32 scalar, steps done.
        params: what the gradient is taken by.
        batch_stats: running means and variances of the norms.
        opt_state: the optimizer's.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, int, int], seed: int
) -> TrainState:
    """The state before the first step, for images of shape (height, width, channel)."""

    @jax.jit
    def initialize(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(variables["params"]),
        )

    return initialize(jax.random.key(seed))


def parameter_count(state: TrainState) -> int:
    """Trainable numbers; batch statistics are not among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))
