"""An exponential moving average of the weights: less noisy than the last ones, and what is evaluated and kept."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxcnn.data.batch import Batch
from jaxcnn.evaluation.counts import Tally
from train.state import TrainState
from train.step import TrainStep


def start_average(state: TrainState) -> TrainState:
    """The state with an average to begin with: of what it starts from alone."""
    # Copies, since a step is given the state's memory to use again, each array's once.
    average = jax.tree.map(jnp.copy, {"params": state.params, "batch_stats": state.batch_stats})
    return dataclasses.replace(state, average=average)


def with_average(train_step: TrainStep, decay: float) -> TrainStep:
    """The step, and after it the average's (Polyak & Juditsky, 1992, in its exponential form).

    After t steps the average keeps min(decay, (1 + t) / (10 + t)) of itself, as in TensorFlow's
    `ExponentialMovingAverage`, so that the random weights at the start are soon forgotten.

    The running statistics of the norms are averaged like the parameters, as timm's `ModelEmaV3` does by default and
    EfficientNet's training did. They are averages themselves, but of the last ten steps or so: those of the last
    weights, not of the averaged ones. What is frozen doesn't change, and is no part of it.
    """

    def averaging_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Tally]:
        after, counted = train_step(state, batch, key)
        newest = {"params": after.params, "batch_stats": after.batch_stats}
        kept = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
        average = optax.incremental_update(newest, state.average, 1 - kept)
        return dataclasses.replace(after, average=average), counted

    return averaging_step
