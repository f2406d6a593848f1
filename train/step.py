"""One training step and one evaluation step: pure functions, for jit on one device, jit over a mesh, or pmap."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxcnn.data.batch import Batch
from jaxcnn.evaluation.counts import Tally, tally
from jaxcnn.inference.tta import average_probabilities
from jaxcnn.models.example_keys import example_places, keys_at
from train.accumulate import accumulate_gradients
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
    objective: LossFunction | None = None,
    accumulate: int = 1,
) -> TrainStep:
    """Build `train_step(state, batch, key) -> (state, tally)`.

    `key` is the run's; the step folds in its own number, so a run that goes on draws what it would have drawn.
    Under `axis_name` each device sees its share of the batch: gradients are averaged, batch statistics are the global
    batch's, tallies are summed. Every image of a training batch counts, whatever the mask says.

    What is minimised is the mean of `objective`, or of `loss` without one. The tally holds `loss` all the same, so that
    the learning curves of training, validation and test images are of one measure.

    With `accumulate` the batch goes through in so many micro-batches, one after the other, and the mean of their
    gradients is what the optimizer sees; see `accumulate_gradients`.
    """
    model = network.model.clone(axis_name=axis_name)
    minimised = loss if objective is None else objective

    def gradients_of(
        state: TrainState, dropout_key: jax.Array, batch_stats: Any, examples: _Examples
    ) -> tuple[Any, Any, Tally]:
        inputs = network.inputs(state.frozen, examples.inputs, examples.keys)

        def mean_loss(params: Any) -> tuple[Array, tuple[Array, Any]]:
            logits, updates = model.clone(places=examples.places).apply(
                {"params": params, "batch_stats": batch_stats},
                inputs,
                train=True,
                method=network.learner,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            return jnp.mean(minimised(logits, examples.labels)), (logits, updates.get("batch_stats", {}))

        gradients, (logits, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
        losses = loss(logits, examples.labels)
        return gradients, batch_stats, tally(logits, examples.labels, losses, jnp.ones(len(losses), bool))

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Tally]:
        dropout_key, augmentation_key = jax.random.split(jax.random.fold_in(key, state.step))
        places = example_places(len(batch.labels), axis_name)
        examples = _Examples(batch.inputs, batch.labels, keys_at(augmentation_key, places), places)
        gradients, batch_stats, counted = accumulate_gradients(
            partial(gradients_of, state, dropout_key), state.batch_stats, examples, accumulate
        )
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
class _Examples:
    """A batch or a micro-batch, with each example's augmentation key and place in the global batch."""

    inputs: Any
    labels: Any
    keys: Any
    places: Any


def make_eval_step(network: Network, loss: LossFunction, axis_name: str | None = None) -> EvalStep:
    """Build `eval_step(state, batch) -> (tally, logits)`; only images under the mask are counted.

    Of a batch that holds several views of each image the logits are those of their mean probabilities.
    """

    def eval_step(state: TrainState, batch: Batch) -> tuple[Tally, Float[Array, "batch classes"]]:
        inputs = network.inputs(state.frozen, batch.inputs, None)
        logits = cast(Array, network.model.apply(state.learnt, inputs, train=False, method=network.learner))
        logits = average_probabilities(logits, len(logits) // len(batch.labels))
        counted = tally(logits, batch.labels, loss(logits, batch.labels), batch.mask)
        return counted if axis_name is None else jax.lax.psum(counted, axis_name), logits

    return eval_step
