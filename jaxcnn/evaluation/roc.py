"""The receiver operating characteristic of one class against the others."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64


@dataclasses.dataclass(frozen=True)
class RocCurve:
    """The corners of the curve, from (0, 0) to (1, 1), with one step for each distinct score.

    Attributes:
        false_positive_rate: share of the negatives that score at least the threshold.
        true_positive_rate: share of the positives that do.
    """

    false_positive_rate: Float64[np.ndarray, " corners"]
    true_positive_rate: Float64[np.ndarray, " corners"]


def roc_curve(scores: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> RocCurve:
    """Compute the curve for falling thresholds; images with equal scores share one sloped step.

    Raises:
        ValueError: there are no positives or no negatives.
    """
    if positive.all() or not positive.any():
        raise ValueError(f"the ROC curve is undefined with {positive.sum()} positives among {len(positive)} images")
    order = np.argsort(-scores)
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    rates = [
        np.append(0, np.cumsum(side[order])[last_of_equals]) / np.count_nonzero(side) for side in (~positive, positive)
    ]
    return RocCurve(*rates)
