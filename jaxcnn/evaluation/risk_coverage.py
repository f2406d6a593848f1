"""The share of wrong answers where a classifier may decline to answer: the risk-coverage curve."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.special import softmax

from jaxcnn.evaluation.predictions import Predictions


@dataclasses.dataclass(frozen=True)
class RiskCoverage:
    """Of the images that are answered, from the most certain one to all of them, the share that is wrong.

    Geifman & El-Yaniv, Selective classification for deep neural networks, 2017.

    Attributes:
        coverage: share of the images that are answered.
        risk: share of these that are given another class than their own.
    """

    coverage: Float64[np.ndarray, " n"]
    risk: Float64[np.ndarray, " n"]

    @property
    def area(self) -> float:
        """The mean risk over all coverages (AURC); lower is better."""
        return float(self.risk.mean())


def risk_coverage(doubt: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> RiskCoverage:
    """Answer ever more images, those of the least doubt first."""
    answered = np.arange(1, len(doubt) + 1)
    wrong = np.cumsum(~right[np.argsort(doubt, kind="stable")])
    return RiskCoverage(answered / len(doubt), wrong / answered)


def curves_by_doubt(predictions: Predictions, unlike: Float[np.ndarray, " n"] | None = None) -> dict[str, RiskCoverage]:
    """The curves for two kinds of doubt: how low the largest probability is, and, where known, how unlike an image."""
    right = predictions.logits.argmax(axis=1) == predictions.labels
    doubts = {"probability": -softmax(predictions.logits.astype(np.float64), axis=1).max(axis=1)}
    if unlike is not None:
        doubts["unlike"] = unlike
    return {name: risk_coverage(doubt, right) for name, doubt in doubts.items()}
