"""One training step and one evaluation step: pure functions, for jit on one device, jit over a mesh, or pmap."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxcnn.data.pipeline import Batch
from jaxcnn.example_keys import example_keys
from jaxcnn.metrics import Tally, tally
from train.losses import LossFunction
from train.network import Network
from train.state import TrainState

TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Tally]]
EvalStep = Callable[[TrainState, Batch], tuple[Tally, Float[Array, "batch classes"]]]


def make_train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    loss: LossFunction,
    axis_name: str | None = None,
    *,
    accumulate: int = 1,
) -> TrainStep:
    """Build `train_step(state, batch, key) -> (state, tally)`.

    `key` is the run's; the step folds in its own number, so a run that goes on draws what it would have drawn.
    Under `axis_name` each device sees its share of the batch: gradients are averaged, batch statistics are the global
    batch's, tallies are summed. Every image of a training batch counts, whatever the mask says.

    With `accumulate` the batch goes through in so many micro-batches, one after the other, and the mean of their
    gradients is what the optimizer sees. That is the gradient of the whole batch where an image's loss depends on no
    other image. BatchNorm breaks this: it normalises by the micro-batch, and updates its running statistics with each.
    """
    model = network.model.clone(axis_name=axis_name)

    def gradients_of(state: TrainState, part: _Part) -> tuple[Any, Any, Tally]:
        inputs = network.inputs(state.frozen, part.inputs, part.keys)

        def mean_loss(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                inputs,
                train=True,
                method=network.learner,
                rngs={"dropout": part.dropout_key},
                mutable=["batch_stats"],
            )
            losses = loss(logits, part.labels)
            return jnp.mean(losses), (logits, losses, updates["batch_stats"])

        gradients, (logits, losses, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
        return gradients, batch_stats, tally(logits, part.labels, losses, jnp.ones(len(part.labels), bool))

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Tally]:
        dropout_key, augmentation_key = jax.random.split(jax.random.fold_in(key, state.step))
        keys = example_keys(augmentation_key, len(batch.labels), axis_name)
        whole = _Part(batch.inputs, batch.labels, keys, dropout_key)
        if accumulate == 1:
            gradients, batch_stats, counted = gradients_of(state, whole)
        else:
            gradients, batch_stats, counted = _accumulate(gradients_of, state, whole, accumulate)
        if axis_name is not None:
            gradients = jax.lax.pmean(gradients, axis_name)
            counted = jax.lax.psum(counted, axis_name)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, counted

    return train_step


@flax.struct.dataclass
class _Part:
    """A batch or a micro-batch, with a key an example for augmentation and one key for dropout."""

    inputs: Any
    labels: Any
    keys: Any
    dropout_key: Any


def _accumulate(
    gradients_of: Callable[[TrainState, _Part], tuple[Any, Any, Tally]], state: TrainState, whole: _Part, count: int
) -> tuple[Any, Any, Tally]:
    """Mean gradient, last batch statistics and sums of `count` micro-batches, of which one at a time is in memory."""

    def split(leaf: Array) -> Array:
        # Every count-th example: of a batch that is sharded over devices each micro-batch is, too, without a transfer.
        return jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1)

    def add(carry: tuple[Any, Any, Tally], part: _Part) -> tuple[tuple[Any, Any, Tally], None]:
        gradients, batch_stats, counted = carry
        more, batch_stats, counted_more = gradients_of(dataclasses.replace(state, batch_stats=batch_stats), part)
        return (jax.tree.map(jnp.add, gradients, more), batch_stats, counted + counted_more), None

    parts = _Part(
        split(whole.inputs), split(whole.labels), split(whole.keys), jax.random.split(whole.dropout_key, count)
    )
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    rest = jax.tree.map(lambda leaf: leaf[1:], parts)
    (gradients, batch_stats, counted), _ = jax.lax.scan(add, gradients_of(state, first), rest)
    return jax.tree.map(lambda leaf: leaf / count, gradients), batch_stats, counted


def make_eval_step(network: Network, loss: LossFunction, axis_name: str | None = None) -> EvalStep:
    """Build `eval_step(state, batch) -> (tally, logits)`; only images under the mask are counted."""

    def eval_step(state: TrainState, batch: Batch) -> tuple[Tally, Float[Array, "batch classes"]]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        inputs = network.inputs(state.frozen, batch.inputs, None)
        logits = cast(Array, network.model.apply(variables, inputs, train=False, method=network.learner))
        counted = tally(logits, batch.labels, loss(logits, batch.labels), batch.mask)
        return counted if axis_name is None else jax.lax.psum(counted, axis_name), logits

    return eval_step
