"""Estimate how much scores vary with the test images: the percentile bootstrap over groups of near-duplicates.

Images of one group are no independent observations. So whole groups are drawn, with replacement, as many as there are
(the cluster bootstrap; Field & Welsh, Bootstrapping clustered data, J. R. Statist. Soc. B 69, 2007); a resample may
have more or fewer images than the set. Percentile intervals: Efron & Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxcnn.evaluation.measures import Measures, measures

RESAMPLES = 2000
LEVEL = 0.95
# Weights at a time, 32 MB; the measures take some times as much.
_BLOCK = 4_000_000


def group_weights(
    groups: Int[np.ndarray, " n"], resamples: int, *, seed: int, block: int = _BLOCK
) -> Iterator[Float64[np.ndarray, "rows n"]]:
    """Yield the number of times that each image is in each resample, for some resamples at a time.

    Args:
        groups: images with the same number are drawn together.
        seed: with the groups it decides everything, so that models with the same images get the same resamples.
        block: bounds the number of weights at a time, and changes nothing else.
    """
    random = np.random.default_rng(seed)
    _, group_of = np.unique(groups, return_inverse=True)
    count = group_of.max() + 1
    rows = max(1, block // len(groups))
    for done in range(0, resamples, rows):
        drawn = random.integers(count, size=(min(rows, resamples - done), count))
        cells = drawn + count * np.arange(len(drawn))[:, np.newaxis]
        times = np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield times[:, group_of].astype(np.float64)


def resampled_measures(
    logits: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    resamples: int = RESAMPLES,
    *,
    seed: int = 0,
) -> Measures:
    """Compute the measures of every resample.

    With the same labels, groups and seed, row i of two models is of the same resample: the interval of the difference
    of their measures is that of the paired bootstrap.
    """
    parts = [measures(logits, labels, weights) for weights in group_weights(groups, resamples, seed=seed)]
    return Measures(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def interval(
    values: Float64[np.ndarray, " resamples *shape"], level: float = LEVEL
) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
    """Return the bounds of the middle `level` share of the resamples.

    Resamples in which the measure isn't defined are left out; where it is in none, the bounds are NaN.
    """
    tails = [(1 - level) / 2, (1 + level) / 2]
    undefined = np.isnan(values).all(axis=0)
    # NumPy warns of columns without any number.
    low, high = np.nanquantile(np.where(undefined, 0.0, values), tails, axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
