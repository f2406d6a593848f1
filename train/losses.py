"""Losses per image, from logits: what a network is judged by, and what training minimises in its place."""

from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int

LossName = Literal["cross-entropy", "double-softmax"]
LossFunction = Callable[[Float[Array, "batch classes"], Int[Array | np.ndarray, " batch"]], Float[Array, " batch"]]


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, " batch"]:
    """Cross-entropy in nats of the softmax of `logits`."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def double_softmax(
    logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, " batch"]:
    """Cross-entropy that takes probabilities for logits, as the reference project does: it can't fall below 0.74.

    With four classes the best it can see is softmax of (1, 0, 0, 0), and -log(e / (e + 3)) is 0.744.
    """
    return cross_entropy(jax.nn.softmax(logits), labels)


def smoothed_cross_entropy(smoothing: float) -> LossFunction:
    """Cross-entropy with label smoothing (Szegedy et al., 2016), PyTorch's `label_smoothing`.

    The label is to have the probability 1 - smoothing, and all classes, the label among them, share the rest. So no
    network gains by being ever surer of what it has right already.
    """

    def loss(
        logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
    ) -> Float[Array, " batch"]:
        targets = optax.losses.smooth_labels(jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype), smoothing)
        return optax.losses.softmax_cross_entropy(logits, targets)

    return loss


LOSSES: dict[LossName, LossFunction] = {"cross-entropy": cross_entropy, "double-softmax": double_softmax}


def build_objective(name: LossName, label_smoothing: float) -> LossFunction:
    """What training minimises the mean of; without the options it is the loss itself."""
    return smoothed_cross_entropy(label_smoothing) if label_smoothing else LOSSES[name]
