"""Compute exact classification scores over a whole set: count batch by batch, divide once.

A mean of per-batch F1 scores is not the F1 score, and a padded last batch must not weigh in. So a step returns sums
(`Tally`), the host adds them up, and `scores` divides at the end.
"""

import dataclasses
import math
from functools import reduce
from operator import add
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


@flax.struct.dataclass
class Tally:
    """Sums over images, or over the pixels of images.

    Attributes:
        loss: scalar, in nats; each pixel of an image counts with the loss of the image.
        confusion: (classes, classes), how many of each true class (row) were given each predicted class (column).
    """

    loss: Any
    confusion: Any

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.loss + other.loss, self.confusion + other.confusion)


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a set of predictions. All but the loss lie in [0, 1]."""

    loss: float
    accuracy: float
    f1_macro: float
    f1_weighted: float


def tally(
    logits: Float[Array, "batch *space classes"],
    labels: Int[Array | np.ndarray, " batch *space"],
    losses: Float[Array, " batch"],
    mask: Bool[Array | np.ndarray, " batch"],
) -> Tally:
    """Sum over the images of a batch that `mask` selects, or over their pixels where these have logits."""
    classes, space = jnp.arange(logits.shape[-1]), labels.shape[1:]
    true = (labels[..., None] == classes) & mask.reshape(-1, *[1] * len(space), 1)
    predicted = jnp.argmax(logits, axis=-1)[..., None] == classes
    confusion = jnp.sum(true[..., :, None] & predicted[..., None, :], axis=tuple(range(labels.ndim)), dtype=jnp.int32)
    # where(), not a product: the loss of a padded row may be inf or NaN.
    return Tally(math.prod(space) * jnp.sum(jnp.where(mask, losses, jnp.zeros_like(losses))), confusion)


def total(tallies: list[Tally]) -> Tally:
    """Add up the tallies of all batches, in double precision on the host."""
    return reduce(add, (Tally(np.float64(t.loss), np.asarray(t.confusion, np.int64)) for t in tallies))


def scores(counted: Tally) -> Scores:
    """Divide the sums. F1 is scikit-learn's with `zero_division=0` over all classes.

    Raises:
        ValueError: no image was counted.
    """
    confusion = np.asarray(counted.confusion, np.float64)
    images = confusion.sum()
    if images == 0:
        raise ValueError("no scores without images: the tally is empty")
    # Of each class 2 TP / (2 TP + FP + FN); 0 for one with no image and no prediction.
    hits, occurrences = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = np.divide(2 * hits, occurrences, out=np.zeros_like(hits), where=occurrences > 0)
    return Scores(
        loss=float(counted.loss) / images,
        accuracy=np.trace(confusion) / images,
        f1_macro=f1.mean(),
        f1_weighted=f1 @ confusion.sum(axis=1) / images,
    )


def confusion_matrix(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count the images of each true class (row) with each predicted class (column)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
