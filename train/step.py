"""One training step and one evaluation step: pure functions, for jit on one device, jit over a mesh, or pmap."""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxcnn.data.pipeline import Batch, to_unit_range
from jaxcnn.metrics import Tally, tally
from train.losses import LossFunction
from train.state import TrainState

TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Tally]]
EvalStep = Callable[[TrainState, Batch], tuple[Tally, Float[Array, "batch classes"]]]


def make_train_step(
    model: nn.Module, optimizer: optax.GradientTransformation, loss: LossFunction, axis_name: str | None = None
) -> TrainStep:
    """Build `train_step(state, batch, key) -> (state, tally)`.

    `key` is the run's; the step folds in its own number, so a run that goes on draws what it would have drawn.
    Under `axis_name` each device sees its share of the batch: gradients are averaged, batch statistics are the global
    batch's, tallies are summed. Every image of a training batch counts, whatever the mask says.
    """
    model = model.clone(axis_name=axis_name)

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Tally]:
        key = jax.random.fold_in(key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        images = to_unit_range(batch.images)

        def mean_loss(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            losses = loss(logits, batch.labels)
            return jnp.mean(losses), (logits, losses, updates["batch_stats"])

        gradients, (logits, losses, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
        counted = tally(logits, batch.labels, losses, jnp.ones_like(batch.mask))
        if axis_name is not None:
            gradients = jax.lax.pmean(gradients, axis_name)
            counted = jax.lax.psum(counted, axis_name)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, counted

    return train_step


def make_eval_step(model: nn.Module, loss: LossFunction, axis_name: str | None = None) -> EvalStep:
    """Build `eval_step(state, batch) -> (tally, logits)`; only images under the mask are counted."""

    def eval_step(state: TrainState, batch: Batch) -> tuple[Tally, Float[Array, "batch classes"]]:
        logits = cast(Array, model.apply(state.variables, to_unit_range(batch.images), train=False))
        counted = tally(logits, batch.labels, loss(logits, batch.labels), batch.mask)
        return counted if axis_name is None else jax.lax.psum(counted, axis_name), logits

    return eval_step
