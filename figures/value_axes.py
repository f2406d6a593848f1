"""The axes of parallel coordinates: the position of each model's value, and the labels of the axis."""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.ticker import LogLocator, MaxNLocator

from figures.scored_models import Model

MISSING = -0.13
"""Height of a missing value, below the axis."""

_MOST_VALUES = 10  # An axis with more values has round numbers as ticks.
_LEAST_DISTANCE = 0.06  # Between two ticks, in heights of the axis: one line of text with some space.


@dataclasses.dataclass(frozen=True)
class ValueAxis:
    """An axis from 0 to 1.

    Attributes:
        heights: of each model; `MISSING` if it has no value.
        ticks: heights and labels, the lowest first.
    """

    title: str
    heights: Float64[np.ndarray, " models"]
    ticks: tuple[tuple[float, str], ...]


def value_axes(models: Sequence[Model]) -> tuple[ValueAxis, ...]:
    """Batch size, learning rate and dropout, each over its own range, and train and test F1 on the same scale."""
    values = {
        quantity: np.array([model.value(quantity) for model in models])
        for quantity in ("batch_size", "learning_rate", "dropout", "train_f1_macro", "test_f1_macro")
    }
    scores = np.concatenate([values["train_f1_macro"], values["test_f1_macro"]])
    return (
        _axis("batch size", values["batch_size"], logarithmic=True),
        _axis("learning rate", values["learning_rate"], logarithmic=True),
        _axis("dropout", values["dropout"]),
        _score_axis("train F1", values["train_f1_macro"], scores),
        _score_axis("test F1", values["test_f1_macro"], scores),
    )


def _axis(title: str, values: Float64[np.ndarray, " models"], *, logarithmic: bool = False) -> ValueAxis:
    occurring = np.unique(values[np.isfinite(values)])
    if len(occurring) == 0:
        return ValueAxis(title, np.full(len(values), MISSING), ())
    low, high = occurring[0], occurring[-1]
    candidates = occurring if len(occurring) <= _MOST_VALUES else _round_numbers(low, high, logarithmic=logarithmic)
    scale = np.log if logarithmic else np.asarray
    return _between(title, values, candidates, low, high, scale)


def _score_axis(title: str, values: Float64[np.ndarray, " models"], scores: Float64[np.ndarray, " _"]) -> ValueAxis:
    """An axis that holds all `scores`, from one multiple of 0.05 to another."""
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return ValueAxis(title, np.full(len(values), MISSING), ())
    low = min(np.floor(20 * finite.min()), 19) / 20
    high = max(np.ceil(20 * finite.max()) / 20, low + 0.05)
    return _between(title, values, _round_numbers(low, high), low, high, np.asarray)


def _between(
    title: str,
    values: Float64[np.ndarray, " models"],
    candidates: Float64[np.ndarray, " _"],
    low: float,
    high: float,
    scale: Callable[[np.ndarray], np.ndarray],
) -> ValueAxis:
    def heights(of: Float64[np.ndarray, " _"]) -> Float64[np.ndarray, " _"]:
        # A value that doesn't vary is drawn in the middle.
        bottom, top = scale(np.array([low, high]))
        return (scale(of) - bottom) / (top - bottom) if top > bottom else np.full(len(of), 0.5)

    ticks = _thinned(heights(candidates))
    labels = _labels(candidates[ticks])
    at = np.where(np.isfinite(values), heights(values), MISSING)
    return ValueAxis(title, at, tuple(zip(heights(candidates)[ticks].tolist(), labels, strict=True)))


def _round_numbers(low: float, high: float, *, logarithmic: bool = False) -> Float64[np.ndarray, " _"]:
    """Round numbers from `low` to `high`, or these two if there are fewer than two round numbers."""
    locator = LogLocator(subs=(1, 2, 5)) if logarithmic else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    found = np.asarray(locator.tick_values(low, high), np.float64)
    tolerance = 1e-9 * (high - low)
    within = found[(found >= low - tolerance) & (found <= high + tolerance)]
    return within if len(within) > 1 else np.array([low, high])


def _thinned(heights: Float64[np.ndarray, " _"]) -> list[int]:
    """The places of the ticks that are far enough apart; the lowest and the highest are kept first."""
    kept: list[int] = []
    for place in (0, len(heights) - 1, *range(1, len(heights) - 1)):
        if all(abs(heights[place] - heights[other]) >= _LEAST_DISTANCE for other in kept):
            kept.append(place)
    return sorted(kept)


def _labels(values: Float64[np.ndarray, " _"]) -> list[str]:
    """Labels with as few digits as tell the values apart, and at least three."""
    return next(
        labels
        for digits in range(3, 18)
        if len(set(labels := [number(value, digits) for value in values])) == len(values)
    )


def number(value: float, digits: int = 3) -> str:
    """The value as short text with at most so many digits: 32, 0.001, 1e-5."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return re.sub(r"e([+-])0*", lambda sign: f"e{sign[1].strip('+')}", f"{value:.{digits}g}")
