"""An overview of many models: one line per model through batch size, learning rate, dropout, train and test F1."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.patheffects import withStroke

from figures.run_folders import Folders
from figures.saving import save_figure
from figures.score_colours import ON_WHITE, score_colour, score_range
from figures.scored_models import Model, best_model, read_models
from figures.value_axes import MISSING, ValueAxis, value_axes

# Lines pass behind the labels.
_HALO = {"boxstyle": "round,pad=0.1,rounding_size=0.4", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
_INK = "#222222"
_LONGEST_NAME = 70


def models_figure(models: Sequence[Model]) -> Figure:
    """Parallel coordinates, coloured by test F1; the best model by validation F1 is thicker, on top, and named."""
    axes = value_axes(models)
    # The panel has a fixed place: value_axes keeps the labels apart on an axis of this height.
    figure = Figure(figsize=(12, 6))
    panel = figure.add_axes((0.065, 0.13, 0.81, 0.68))
    lowest = min(0, *(axis.heights.min() for axis in axes))
    panel.set(xlim=(-0.02, len(axes) - 0.98), ylim=(lowest - 0.02, 1))
    panel.set_axis_off()
    scores = [model.value("test_f1_macro") for model in models]
    within, best = score_range(scores), best_model(models)
    alpha = float(np.clip((8 / len(models)) ** 0.4, 0.3, 0.9))
    heights = np.stack([axis.heights for axis in axes], axis=1)
    # The worst first, so that good ones are seen; what has no score is under all others.
    for place in np.argsort(np.nan_to_num(scores, nan=-1), kind="stable"):
        _draw_model(panel, heights[place], score_colour(scores[place], within), alpha, models[place] is best)
    for place, axis in enumerate(axes):
        _draw_axis(panel, place, axis, last=len(axes) - 1)
    _draw_colour_bar(figure, panel, within)
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    figure.text(0.03, 0.935, count, fontsize=15, weight="bold", color=_INK)
    figure.text(0.97, 0.937, "macro F1 of the best epoch by validation F1", ha="right", fontsize=10, color="#555555")
    if best:
        line = Line2D([], [], color=score_colour(best.value("test_f1_macro"), within), linewidth=4)
        legend = figure.legend([line], [_sentence(best)], loc="lower center", bbox_to_anchor=(0.5, 0.02), frameon=False)
        for text in legend.get_texts():
            text.set(parse_math=False, color=_INK)
    return figure


def _draw_colour_bar(figure: Figure, panel: Axes, within: Normalize) -> None:
    """As high as the axes."""
    (_, low), (_, high) = figure.transFigure.inverted().transform(panel.transData.transform([(0, 0), (0, 1)]))
    bar = figure.colorbar(ScalarMappable(within, ON_WHITE), cax=figure.add_axes((0.945, low, 0.012, high - low)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=8, colors=_INK)
    bar.ax.set_title("test F1", fontsize=9, color=_INK, pad=8)


def curve(heights: Float64[np.ndarray, " axes"]) -> Curve:
    """The line of a model through the axes at 0, 1, 2, ...: cubic Bézier curves that are level at each axis."""
    vertices, codes = [(0.0, heights[0])], [Curve.MOVETO]
    for place, (start, end) in enumerate(pairwise(heights)):
        vertices += [(place + 0.5, start), (place + 0.5, end), (place + 1.0, end)]
        codes += [Curve.CURVE4] * 3
    return Curve(vertices, codes)


def _draw_model(panel: Axes, heights: Float64[np.ndarray, " axes"], colour: str, alpha: float, best: bool) -> None:
    style = {"linewidth": 3.2, "zorder": 3.0, "path_effects": [withStroke(linewidth=5, foreground="white")]}
    usual = {"linewidth": 1.4, "zorder": 2.0, "alpha": alpha}
    panel.add_patch(
        PathPatch(curve(heights), fill=False, edgecolor=colour, clip_on=False, **(style if best else usual))
    )


def _draw_axis(panel: Axes, place: int, axis: ValueAxis, last: int) -> None:
    """An axis with its labels: outside the outer axes, where no lines are, and above the lines at the others."""
    side, aligned = (1, "left") if place == last else (-1, "right")
    raised, vertically = (0, "center_baseline") if place in (0, last) else (5, "baseline")

    def write(height: float, text: str, **style: Any) -> None:
        panel.annotate(
            text,
            (place, height),
            (7 * side, raised),
            textcoords="offset points",
            ha=aligned,
            va=vertically,
            fontsize=10,
            bbox=_HALO,
            zorder=5,
            **{"color": _INK, **style},
        )

    panel.plot([place, place], [0, 1], color=_INK, linewidth=1.2, zorder=4, clip_on=False)
    for height, label in axis.ticks:
        panel.plot([place], [height], marker="_", color=_INK, markersize=8, zorder=4, clip_on=False)
        write(height, label)
    if (axis.heights == MISSING).any():
        panel.plot([place, place], [MISSING, 0], ":", color="#888888", linewidth=1.2, zorder=4, clip_on=False)
        panel.plot([place], [MISSING], "o", color="white", markeredgecolor="#888888", markersize=5, zorder=4)
        write(MISSING, "missing", color="#666666", style="italic")
    title: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 11, "weight": "bold", "color": _INK}
    panel.annotate(axis.title, (place, 1), (0, 20), textcoords="offset points", **title)


def _sentence(best: Model) -> str:
    name = best.name if len(best.name) <= _LONGEST_NAME else f"{best.name[:_LONGEST_NAME]}…"
    scores = ", ".join(f"{split} {best.value(f'{split}_f1_macro'):.3f}" for split in ("validation", "test"))
    return f"best by validation F1: {name} ({scores})"


def models(folders: Folders, out: Path | None = None) -> None:
    """Draw an overview of many models: one line per model through its hyper-parameters and scores.

    Args:
        folders: Sweep folders or run folders.
        out: File of the figure; figures/models.png in the first folder if not given.
    """
    figure = models_figure(read_models(folders))
    save_figure(figure, out or folders[0] / "figures" / "models.png")
