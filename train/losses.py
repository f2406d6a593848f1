"""Compute the loss of each image from logits: the reported losses, and the objectives that training minimises."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int

ClassWeightsName = Literal["none", "balanced"]
# As a share of the pixels: 164 of 128x128, about the mean over all slices of the LGG data.
_DICE_SMOOTHING = 1e-2
ClassWeights = Float32[np.ndarray, " classes"]
LossFunction = Callable[
    [Float[Array, "batch *space classes"], Int[Array | np.ndarray, " batch *space"]], Float[Array, " batch"]
]


def cross_entropy(
    logits: Float[Array, "batch *space classes"], labels: Int[Array | np.ndarray, " batch *space"]
) -> Float[Array, " batch"]:
    """Compute the cross-entropy of the softmax of `logits`, in nats; of masks the mean over the pixels."""
    # Not the one with integer labels: the gradient of its indexing is a scatter.
    return _over_pixels(optax.losses.softmax_cross_entropy(logits, _one_hot(labels, logits)))


def dice(
    logits: Float[Array, "batch height width classes"], labels: Int[Array | np.ndarray, "batch height width"]
) -> Float[Array, " batch"]:
    """Compute 1 - the soft Dice coefficient of each image, the mean over the classes but the background.

    The coefficient is (2 sum pt + s) / (sum p + sum t + s) for probabilities p and the true mask t (Milletari et al.,
    "V-Net", 2016, without the squares), with s a hundredth of the image's pixels. Where there is no tumour it is
    s / (sum p + s): 1 if none is predicted, and the lower the larger a predicted one is. It is taken of each image, not
    of the batch, so that it doesn't depend on which images come together, nor on how many devices share them.
    """
    probabilities, true = jax.nn.softmax(logits)[..., 1:], _one_hot(labels, logits)[..., 1:]
    smoothing = _DICE_SMOOTHING * math.prod(labels.shape[1:])
    both, either = (jnp.sum(pixels, axis=(1, 2)) for pixels in (probabilities * true, probabilities + true))
    return 1 - jnp.mean((2 * both + smoothing) / (either + smoothing), axis=-1)


def dice_cross_entropy(
    logits: Float[Array, "batch height width classes"], labels: Int[Array | np.ndarray, "batch height width"]
) -> Float[Array, " batch"]:
    """Compute the sum of `dice` and `cross_entropy`."""
    return dice(logits, labels) + cross_entropy(logits, labels)


def _over_pixels(losses: Float[Array, " batch *space"]) -> Float[Array, " batch"]:
    return jnp.mean(losses, axis=(1, 2)) if losses.ndim == 3 else losses


def double_softmax(
    logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, " batch"]:
    """Compute cross-entropy with probabilities used as logits, like the reference project: it can't fall below 0.74.

    With four classes the best it can see is softmax of (1, 0, 0, 0), and -log(e / (e + 3)) is 0.744.
    """
    return cross_entropy(jax.nn.softmax(logits), labels)


def smoothed_cross_entropy(smoothing: float) -> LossFunction:
    """Compute cross-entropy with label smoothing (Szegedy et al., 2016), PyTorch's `label_smoothing`.

    The label is to have the probability 1 - smoothing, and all classes, the label among them, share the rest. So no
    network gains by being ever surer of what it has right already.
    """

    def loss(
        logits: Float[Array, "batch *space classes"], labels: Int[Array | np.ndarray, " batch *space"]
    ) -> Float[Array, " batch"]:
        targets = optax.losses.smooth_labels(_one_hot(labels, logits), smoothing)
        return _over_pixels(optax.losses.softmax_cross_entropy(logits, targets))

    return loss


def _one_hot(
    labels: Int[Array | np.ndarray, " batch *space"], logits: Float[Array, "batch *space classes"]
) -> Float[Array, "batch *space classes"]:
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


# The names that --loss takes.
LOSSES: dict[str, LossFunction] = {
    "cross-entropy": cross_entropy,
    "double-softmax": double_softmax,
    "dice": dice,
    "dice-cross-entropy": dice_cross_entropy,
}
# Those of masks alone.
MASK_LOSSES = ("dice", "dice-cross-entropy")


def weighted(loss: LossFunction, weights: ClassWeights) -> LossFunction:
    """Multiply the loss of each image by the weight of its class.

    The mean over a batch stays the plain one, as in Keras: PyTorch's `CrossEntropyLoss(weight=...)` divides by the sum
    of the weights in the batch, so that the mean of the means of its parts (devices, micro-batches) is not that of the
    whole. And with label smoothing the weight is the image's, where PyTorch weighs each class that the label is
    spread over.
    """

    def of_class(
        logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
    ) -> Float[Array, " batch"]:
        return loss(logits, labels) * jnp.asarray(weights)[labels]

    return of_class


def balanced_weights(labels: Int[np.ndarray, " n"], classes: int) -> ClassWeights:
    """Weigh classes inversely to their counts, as scikit-learn's `compute_class_weight("balanced")` does.

    Their mean over the images is 1, so that losses keep their scale. A class that doesn't occur has 0.
    """
    counts = np.bincount(labels, minlength=classes)
    occurring = counts > 0
    weights = np.zeros(classes, np.float32)
    weights[occurring] = len(labels) / (occurring.sum() * counts[occurring])
    return weights


def build_objective(name: str, label_smoothing: float, class_weights: ClassWeights | None) -> LossFunction:
    """Build the loss that training minimises the mean of; without the options it is the reported loss."""
    loss = smoothed_cross_entropy(label_smoothing) if label_smoothing else LOSSES[name]
    return loss if class_weights is None else weighted(loss, class_weights)
