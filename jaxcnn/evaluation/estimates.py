"""Measures with intervals, for one set of predictions or for the difference of two."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from jaxcnn.evaluation.bootstrap import RESAMPLES, interval, resampled_measures
from jaxcnn.evaluation.measures import Measures, measures
from jaxcnn.evaluation.predictions import Predictions


@dataclasses.dataclass(frozen=True)
class Interval:
    """A measure and the bounds of its interval: scalars, or one value per class. NaN marks undefined values."""

    value: Float64[np.ndarray, "*shape"]
    low: Float64[np.ndarray, "*shape"]
    high: Float64[np.ndarray, "*shape"]


@dataclasses.dataclass(frozen=True)
class Estimates:
    """The measures of a set of images (one row) and those of its resamples (a row each).

    The difference of two estimates with the same images, resamples and seed is the paired one.
    """

    value: Measures
    resampled: Measures

    def __sub__(self, other: "Estimates") -> "Estimates":
        return Estimates(self.value - other.value, self.resampled - other.resampled)

    def of(self, measure: str) -> Interval:
        """Return the measure of this name, a field of `Measures`."""
        value = getattr(self.value, measure)[0]
        return Interval(np.asarray(value), *interval(getattr(self.resampled, measure)))


def mean_estimates(members: Sequence[Estimates]) -> Estimates:
    """Average the measures of several models, of their images and of each resample of these."""

    def mean(parts: Sequence[Measures]) -> Measures:
        return Measures(**{name: np.mean([getattr(part, name) for part in parts], axis=0) for name in vars(parts[0])})

    return Estimates(mean([member.value for member in members]), mean([member.resampled for member in members]))


def estimate(
    predictions: Predictions, *, temperature: float = 1.0, resamples: int = RESAMPLES, seed: int = 0
) -> Estimates:
    """Measure predictions and their resamples, after dividing the logits by the temperature."""
    logits, labels = predictions.logits.astype(np.float64) / temperature, predictions.labels
    resampled = resampled_measures(logits, labels, predictions.groups, resamples, seed=seed)
    return Estimates(measures(logits, labels), resampled)
