"""Colours for scores: perceptually uniform, with the highest scores farthest from the background."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_hex

_VIRIDIS = colormaps["viridis"]
ON_WHITE = ListedColormap(_VIRIDIS(np.linspace(0.9, 0, 256)), "from light green to dark violet")
ON_BLACK = ListedColormap(_VIRIDIS(np.linspace(0.25, 1, 256)), "from blue to yellow")


def score_range(scores: Sequence[float]) -> Normalize:
    """The range of the scores that aren't missing; its width is never 0."""
    finite = [score for score in scores if np.isfinite(score)] or [0, 1]
    low, high = min(finite), max(finite)
    return Normalize(low, high) if high > low else Normalize(low - 0.005, high + 0.005)


def score_colour(score: float, within: Normalize, colours: Colormap = ON_WHITE) -> str:
    """The colour as #rrggbb; grey if there is no score."""
    return to_hex(colours(within(score))) if np.isfinite(score) else "#8c8c8c"
