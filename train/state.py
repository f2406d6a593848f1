"""The state that a training step reads and returns."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from train.network import Network, Variables, draw_variables


@flax.struct.dataclass
class TrainState:
    """Everything that changes in a run; the model and the optimizer are functions and not part of it.

    The fields are annotated with Any, since a tree transformation may put anything in the place of an array.

    Attributes:
        step: int32 scalar, steps done.
        params: what the gradient is taken by.
        batch_stats: running means and variances of the norms that learn.
        frozen: parameters and statistics of the frozen part, which no step changes; empty where all learns.
        average: EMA of `params` and `batch_stats`, a dictionary of both; empty where none is kept.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    frozen: Any
    average: Any

    @property
    def learnt(self) -> dict[str, Any]:
        """What evaluation uses of the part that learns: `params` and `batch_stats`, or their EMA if there is one."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def variables(self) -> dict[str, Any]:
        """Return the variables that `model.apply` takes in evaluation."""
        return unflatten_dict(flatten_dict(self.frozen) | flatten_dict(self.learnt))

    def with_variables(self, frozen: Variables, learnt: Variables) -> "TrainState":
        """Replace the weights for evaluation, including the EMA."""
        return dataclasses.replace(self, **learnt, frozen=frozen, average=learnt if self.average else {})


def create_state(
    network: Network, optimizer: optax.GradientTransformation, variables: Variables, *, average: bool = False
) -> TrainState:
    """The state before the first step; with `average` it keeps an EMA, which starts from the initial weights."""
    frozen, learning = network.split(variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=learning["params"],
        batch_stats=learning["batch_stats"],
        opt_state=jax.jit(optimizer.init)(learning["params"]),
        frozen=frozen,
        # Copies, since a step is given the state's memory to use again, each array's once.
        average=jax.tree.map(jnp.copy, learning) if average else {},
    )


@jax.jit
def copy_state(state: TrainState) -> TrainState:
    """A copy on the same devices: a step that is given the state takes its memory."""
    return jax.tree.map(jnp.copy, state)


def finite_parts(state: TrainState) -> dict[str, Array]:
    """By the name of each part of a state that changes, whether all its numbers are finite."""
    parts = {
        "parameters": state.params,
        "batch statistics": state.batch_stats,
        "averaged weights": state.average,
        "optimizer's moments": state.opt_state,
    }
    return {
        name: jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(part)]))
        for name, part in parts.items()
    }


def initial_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
    *,
    average: bool = False,
) -> tuple[TrainState, Callable[[], TrainState]]:
    """The shapes of the state before the first step, and a function that draws its weights by the seed.

    The image shape is (height, width, channel) of framed images; with `average` the state keeps an EMA.
    """
    shapes, draw = draw_variables(network, image_shape)

    def create(variables: Variables) -> TrainState:
        return create_state(network, optimizer, variables, average=average)

    return jax.eval_shape(create, shapes), lambda: create(draw(seed))


def parameter_count(tree: Any) -> int:
    """Count the numbers in the arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
