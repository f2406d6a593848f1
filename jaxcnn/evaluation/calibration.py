"""Compare a model's confidence with its accuracy, and calibrate it by temperature scaling (Guo et al. 2017).

Guo, Pleiss, Sun and Weinberger: On calibration of modern neural networks. ICML 2017.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.special import softmax

# Guo et al. use as many.
BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Images by the probability of their predicted class, in bins of equal width from 0 to 1.

    Attributes:
        counts: images of each bin.
        confidence: mean of these probabilities; NaN in a bin without images.
        accuracy: share of the images that are given their class; NaN in a bin without images.
    """

    counts: Int[np.ndarray, " bins"]
    confidence: Float64[np.ndarray, " bins"]
    accuracy: Float64[np.ndarray, " bins"]


def confidence_bin(confidence: Float64[np.ndarray, " n"], bins: int = BINS) -> Int[np.ndarray, " n"]:
    """Return the number of the bin, from 0; a value on an edge belongs to the bin below it (Guo et al., section 2)."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)


def reliability(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], bins: int = BINS) -> Reliability:
    """Compute confidence and accuracy in each bin."""
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = confidence_bin(confidence, bins)
    counts = np.bincount(place, minlength=bins)
    means = [
        np.divide(np.bincount(place, values, bins), counts, out=np.full(bins, np.nan), where=counts > 0)
        for values in (confidence, right)
    ]
    return Reliability(counts, *means)


def fit_temperature(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]) -> float:
    """Find the temperature T for which softmax(logits / T) has the lowest log loss.

    Above 1 the model was too sure of itself, below 1 not sure enough. The log loss is convex in 1 / T, so the slope has
    one zero at most.

    Raises:
        ValueError: there is no such temperature: every image is right, so that sharper is always better, or the logits
            are no better than chance, so that flatter is.
    """
    # Only here, so that training starts without it.
    from scipy.optimize import brentq

    wide = logits.astype(np.float64)
    of_label = wide[np.arange(len(labels)), labels]

    def slope(sharpness: float) -> float:
        """Derivative of the log loss by 1 / T."""
        return float(((softmax(sharpness * wide, axis=1) * wide).sum(axis=1) - of_label).mean())

    if slope(0) >= 0:
        raise ValueError("the logits are no better than chance, so every higher temperature has a lower log loss")
    if (of_label == wide.max(axis=1)).all():
        raise ValueError("all images are classified correctly, so every lower temperature has a lower log loss")
    upper = 1.0
    while slope(upper) <= 0:
        upper *= 2
    return 1 / brentq(slope, 0, upper, xtol=1e-12)
