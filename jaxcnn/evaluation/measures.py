"""Compute scores of a classifier from weighted images, so that a bootstrap is a few matrix products.

A resample is a row of weights that says how often it holds each image; a row of ones is the set itself.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import log_softmax

from jaxcnn.evaluation.calibration import BINS, confidence_bin

Weights = Float64[np.ndarray, "resamples n"]


@dataclasses.dataclass(frozen=True)
class Measures:
    """The measures of a set of predictions, for each row of weights.

    NaN stands for what isn't defined: precision of a class that is never given, recall of one without images, F1 where
    both hold, ROC AUC without images of the class or without others. The means over the classes are over those that
    are defined with all images, and NaN where one of them isn't defined in a resample, so that every value is a mean
    over the same classes. The exception is F1, where classes that are neither given nor occur count as 0, as in
    `jaxcnn.evaluation.counts` (and scikit-learn with `zero_division=0`).

    Attributes:
        accuracy: share of the images that are given their class.
        balanced_accuracy: mean recall of the classes.
        f1_macro: mean F1 of the classes.
        f1_weighted: mean F1 of the classes, weighted by their images.
        auc_macro: mean ROC AUC of the classes.
        calibration_error: expected calibration error of the top label in 15 equal bins (Guo et al. 2017, eq. 3).
        brier_score: mean squared distance of the probabilities from the one-hot label, summed over the classes; from 0
            to 2 (Brier 1950).
        log_loss: mean negative log-likelihood, in nats.
        precision: of what is given this class, the share that is of it.
        recall: of what is of this class, the share that is given it.
        f1: harmonic mean of precision and recall.
        auc: area under the ROC curve of this class against the others, by its probability: how often an image of the
            class has a higher one than an image of another (Hanley & McNeil 1982).
    """

    accuracy: Float64[np.ndarray, " resamples"]
    balanced_accuracy: Float64[np.ndarray, " resamples"]
    f1_macro: Float64[np.ndarray, " resamples"]
    f1_weighted: Float64[np.ndarray, " resamples"]
    auc_macro: Float64[np.ndarray, " resamples"]
    calibration_error: Float64[np.ndarray, " resamples"]
    brier_score: Float64[np.ndarray, " resamples"]
    log_loss: Float64[np.ndarray, " resamples"]
    precision: Float64[np.ndarray, "resamples classes"]
    recall: Float64[np.ndarray, "resamples classes"]
    f1: Float64[np.ndarray, "resamples classes"]
    auc: Float64[np.ndarray, "resamples classes"]

    def __sub__(self, other: "Measures") -> "Measures":
        return Measures(**{name: values - getattr(other, name) for name, values in vars(self).items()})


# Names of the fields of `Measures`: one value a class, one for all images.
PER_CLASS = ("precision", "recall", "f1", "auc")
OVERALL = tuple(field.name for field in dataclasses.fields(Measures) if field.name not in PER_CLASS)


def measures(
    logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], weights: Weights | None = None
) -> Measures:
    """Compute every measure for every row of weights.

    Args:
        logits: their softmax is the probabilities, the first of the largest is the class that is given.
        labels: true classes.
        weights: not negative; a row of ones when not given.
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    total = weights.sum(axis=1)
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    probabilities = np.exp(log_probabilities)
    one_hot, given_one_hot = np.eye(logits.shape[1])[labels], np.eye(logits.shape[1])[logits.argmax(axis=1)]
    # Diagonal, column sums and row sums of the confusion matrix.
    hits, given, occurring = weights @ (one_hot * given_one_hot), weights @ given_one_hot, weights @ one_hot
    recall, f1 = _divide(hits, occurring), _divide(2 * hits, given + occurring)
    auc = np.stack([area_under_roc(p, labels == c, weights) for c, p in enumerate(probabilities.T)], axis=1)
    has_images = np.isin(np.arange(logits.shape[1]), labels)
    named = has_images | np.isin(np.arange(logits.shape[1]), logits.argmax(axis=1))
    return Measures(
        accuracy=hits.sum(axis=1) / total,
        balanced_accuracy=recall[:, has_images].mean(axis=1),
        f1_macro=f1[:, named].mean(axis=1) * named.mean(),
        # F1 is defined for every class with images, and the others weigh nothing.
        f1_weighted=(np.nan_to_num(f1) * occurring).sum(axis=1) / total,
        auc_macro=auc[:, has_images].mean(axis=1),
        calibration_error=_calibration_error(probabilities, labels, weights),
        brier_score=weights @ ((probabilities - one_hot) ** 2).sum(axis=1) / total,
        log_loss=weights @ -log_probabilities[np.arange(len(labels)), labels] / total,
        precision=_divide(hits, given),
        recall=recall,
        f1=f1,
        auc=auc,
    )


def area_under_roc(
    scores: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], weights: Weights
) -> Float64[np.ndarray, " resamples"]:
    """The share of the pairs of a positive and a negative in which the positive scores higher; equal scores are half.

    By one sort, whatever the number of resamples.
    """
    order = np.argsort(scores)
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    positives, negatives = (
        np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive)
    )
    lower = np.cumsum(negatives, axis=1) - negatives / 2
    return _divide((positives * lower).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def _calibration_error(
    probabilities: Float64[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], weights: Weights
) -> Float64[np.ndarray, " resamples"]:
    """The gaps between accuracy and mean confidence of the bins, weighted by their images.

    An image adds (right - confidence) to the gap of its bin, and the weight of the bin cancels.
    """
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    gaps = np.eye(BINS)[confidence_bin(confidence)] * gap[:, np.newaxis]
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def _divide(part: Float64[np.ndarray, "*shape"], whole: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
