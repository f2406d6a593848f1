"""What a training step reads and returns."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.stages import Traced

from jaxcnn.cpu import xla_only
from train.deferred import Deferred
from train.network import Network

Variables = Mapping[str, Any]


@flax.struct.dataclass
class TrainState:
    """All that a run has in its hands; the model and the optimizer are functions and live outside.

    The fields are annotated with Any, since a tree transformation may put anything in the place of an array.

    Attributes:
        step: int32 scalar, steps done.
        params: what the gradient is taken by.
        batch_stats: running means and variances of the norms that learn.
        opt_state: the optimizer's.
        frozen: parameters and statistics of the frozen part, which no step changes; empty where all learns.
        average: of `params` and `batch_stats`, a dictionary of both; empty where none is kept.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    frozen: Any
    average: Any

    @property
    def learnt(self) -> dict[str, Any]:
        """What the part that learns is judged by: `params` and `batch_stats`, or their average if there is one."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def variables(self) -> dict[str, Any]:
        """All that `model.apply` takes to be judged."""
        return unflatten_dict(flatten_dict(self.frozen) | flatten_dict(self.learnt))

    def with_variables(self, frozen: Variables, learnt: Variables) -> "TrainState":
        """The state with these weights to be judged by, the average included."""
        return dataclasses.replace(self, **learnt, frozen=frozen, average=learnt if self.average else {})


def create_state(network: Network, optimizer: optax.GradientTransformation, variables: Variables) -> TrainState:
    """The state before the first step."""
    frozen, learning = split_frozen(network, variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=learning["params"],
        batch_stats=learning["batch_stats"],
        opt_state=jax.jit(optimizer.init)(learning["params"]),
        frozen=frozen,
        average={},
    )


def initial_variables(network: Network, image_shape: tuple[int, int, int], seed: int) -> Deferred[dict[str, Any]]:
    """Random weights for images of shape (height, width, channel)."""
    # Dropout has no weights: models that differ in it alone are traced and compiled once.
    model = network.model.clone(dropout=0.0)
    shapes = _trace_initializer(model, image_shape).out_info
    return Deferred(shapes, lambda: _compile_initializer(model, image_shape)(jax.random.key(seed)))


@functools.cache
def _trace_initializer(model: nn.Module, image_shape: tuple[int, int, int]) -> Traced:
    def initialize(key: jax.Array) -> dict[str, Any]:
        return dict(model.init(key, jnp.zeros((1, *image_shape)), train=False))

    # No weight depends on what a convolution gives, and XLA's own is traced faster.
    with xla_only():
        return jax.jit(initialize).trace(jax.random.key(0))


@functools.cache
def _compile_initializer(model: nn.Module, image_shape: tuple[int, int, int]) -> Callable[..., dict[str, Any]]:
    # It runs once or a few times, so that what counts is the time to compile: without optimisation, and by XLA's older
    # emitters, it is a sixth. An XLA that has them no more takes the option for an error.
    lowered = _trace_initializer(model, image_shape).lower()
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
    try:
        return lowered.compile(options | {"xla_cpu_use_fusion_emitters": False})
    except jax.errors.JaxRuntimeError:
        return lowered.compile(options)


def split_frozen(network: Network, variables: Variables) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables of the frozen part, and the others: `params` and `batch_stats`, either of which may be empty."""
    frozen: dict[tuple[str, ...], Any] = {}
    learning: dict[tuple[str, ...], Any] = {}
    for path, leaf in flatten_dict(variables).items():
        (frozen if path[1:3] in network.frozen else learning)[path] = leaf
    return unflatten_dict(frozen), {"params": {}, "batch_stats": {}} | unflatten_dict(learning)


def parameter_count(tree: Any) -> int:
    """How many numbers the arrays hold."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
