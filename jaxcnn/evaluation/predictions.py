"""The predictions of a model for the images of a split."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int, Int32
from scipy.special import log_softmax, logsumexp

from jaxcnn.evaluation.counts import confusion_matrix


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The logits of a model for every image of a split, in the split's order.

    `groups` gives for each image the place of the first of its near-duplicates, or of its patient's images, in the
    split (`jaxcnn.data.dataset.Split.groups`): images of one group are no independent observations.
    """

    logits: Float32[np.ndarray, "n classes"]
    labels: Int32[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def take(self, chosen: Int[np.ndarray, " k"]) -> "Predictions":
        """Select the predictions for the images at `chosen`; `groups` still refers to the whole split."""
        names = tuple(self.names[i] for i in chosen)
        return Predictions(self.logits[chosen], self.labels[chosen], self.groups[chosen], names, self.classes)

    def confusion(self) -> np.ndarray:
        """Count the predictions: rows are true classes, columns are predicted classes."""
        return confusion_matrix(self.labels, self.logits.argmax(axis=1), len(self.classes))


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """Combine the predictions of several models for the same images: the mean of their probabilities.

    Its logarithm serves as logits.
    """
    first = members[0]
    if len(members) == 1:
        return first
    log_probabilities = [log_softmax(member.logits.astype(np.float64), axis=1) for member in members]
    mean = logsumexp(log_probabilities, axis=0) - np.log(len(members))
    return dataclasses.replace(first, logits=mean.astype(np.float32))
