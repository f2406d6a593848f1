"""One training step and one evaluation step: pure functions, for jit on one device, jit over a mesh, or pmap."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxcnn.data.batch import Batch
from jaxcnn.evaluation.counts import Tally, tally
from jaxcnn.inference.tta import average_probabilities
from jaxcnn.models.example_keys import example_places, keys_at
from train.losses import LossFunction
from train.network import Network
from train.state import TrainState

TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Tally]]
EvalStep = Callable[[TrainState, Batch], tuple[Tally, Any]]


def make_train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    loss: LossFunction,
    axis_name: str | None = None,
    *,
    objective: LossFunction | None = None,
    accumulate: int = 1,
    ema: float = 0.0,
) -> TrainStep:
    """Build `train_step(state, batch, key) -> (state, tally)`.

    `key` is the run's; the step folds in its own number, so a run that goes on draws what it would have drawn.
    Under `axis_name` each device sees its share of the batch: gradients are averaged, batch statistics are the global
    batch's, tallies are summed. Every image of a training batch counts, whatever the mask says.

    Args:
        loss: of each image; the tally holds it, so that the curves of training, validation and test images compare.
        axis_name: mapped axis that the batch is spread over, or None.
        objective: its mean is minimised; `loss` when not given.
        accumulate: micro-batches that a batch is divided into; see `accumulate_gradients`.
        ema: decay of the average of the weights; 0 where none is kept.
    """
    model = network.model.clone(axis_name=axis_name)
    minimised = loss if objective is None else objective

    def gradients_of(state: TrainState, dropout_key: jax.Array, batch_stats: Any, examples: Any) -> Any:
        batch, keys, places = examples
        inputs, targets = network.inputs(state.frozen, batch.inputs, keys), network.targets(batch.labels, keys)

        def mean_loss(params: Any) -> tuple[Array, tuple[Array, Any]]:
            logits, updates = model.clone(places=places).apply(
                {"params": params, "batch_stats": batch_stats},
                inputs,
                train=True,
                method=network.method,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            return jnp.mean(minimised(logits, targets)), (logits, updates.get("batch_stats", {}))

        gradients, (logits, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
        losses = loss(logits, targets)
        return gradients, batch_stats, tally(logits, targets, losses, jnp.ones(len(losses), bool))

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Tally]:
        dropout_key, augmentation_key = jax.random.split(jax.random.fold_in(key, state.step))
        places = example_places(len(batch.labels), axis_name)
        examples = (batch, keys_at(augmentation_key, places), places)
        gradients, batch_stats, counted = accumulate_gradients(
            partial(gradients_of, state, dropout_key), state.batch_stats, examples, accumulate
        )
        if axis_name is not None:
            gradients = jax.lax.pmean(gradients, axis_name)
            counted = jax.lax.psum(counted, axis_name)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if ema:
            average = update_average(average, {"params": params, "batch_stats": batch_stats}, state.step, ema)
        return TrainState(state.step + 1, params, batch_stats, opt_state, state.frozen, average), counted

    return train_step


def accumulate_gradients(
    gradients_of: Callable[[Any, Any], tuple[Any, Any, Tally]], batch_stats: Any, examples: Any, count: int
) -> tuple[Any, Any, Tally]:
    """Compute the mean gradient, last batch statistics and sums of `count` micro-batches, one at a time in memory.

    That is the gradient of the whole batch where an image's loss depends on no other image: what is random belongs to
    the examples. BatchNorm breaks this: it normalises by the micro-batch, and updates its running statistics with each.

    Args:
        gradients_of: (batch statistics, examples) -> (mean gradient, batch statistics, sums).
        batch_stats: before the first micro-batch.
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


def update_average(average: Any, newest: Any, step: Array, decay: float) -> Any:
    """Update the exponential moving average after a step (Polyak & Juditsky, 1992, in its exponential form).

    After t steps it keeps min(decay, (1 + t) / (10 + t)) of itself, as in TensorFlow's `ExponentialMovingAverage`, so
    that the random weights at the start are soon forgotten.

    The running statistics of the norms are averaged like the parameters, as timm's `ModelEmaV3` does by default and
    EfficientNet's training did. They are averages themselves, but of the last ten steps or so: those of the last
    weights, not of the averaged ones. What is frozen doesn't change, and is no part of it.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(newest, average, 1 - kept)


def make_eval_step(
    network: Network,
    loss: LossFunction,
    axis_name: str | None = None,
    output: Callable[[Array], Array] = lambda logits: logits,
) -> EvalStep:
    """Build `eval_step(state, batch) -> (tally, output(logits))`; only images under the mask are counted.

    Of a batch that holds several views of each image the logits are those of their mean probabilities.
    """

    def eval_step(state: TrainState, batch: Batch) -> tuple[Tally, Array]:
        inputs, targets = network.inputs(state.frozen, batch.inputs), network.targets(batch.labels)
        logits = cast(Array, network.model.apply(state.learnt, inputs, train=False, method=network.method))
        logits = average_probabilities(logits, len(logits) // len(batch.labels))
        counted = tally(logits, targets, loss(logits, targets), batch.mask)
        return counted if axis_name is None else jax.lax.psum(counted, axis_name), output(logits)

    return eval_step
