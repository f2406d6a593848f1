"""Loss and macro F1 over the epochs, on the training and test images, with one line per run."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from figures.run_folders import Folders, open_folders
from figures.saving import save_figure
from figures.score_colours import ON_WHITE
from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, best_epoch, rank, read_epochs
from jaxcnn.runs.lock import is_locked

_LOSSES = {"train_loss": "training loss", "test_loss": "test loss"}
PANELS = {**_LOSSES, "train_f1_macro": "training F1 (macro)", "test_f1_macro": "test F1 (macro)"}
# Of networks that segment.
DICE_PANELS = {**_LOSSES, "train_dice": "training Dice", "test_dice": "test Dice"}

_COLOURS = colormaps["tab10"].colors  # type: ignore[attr-defined]
_HIGHLIGHTED = 3
# A legend of more names is longer than the panels are high.
_MOST_NAMES = 40

# From one look at the runs that are followed to the next.
_SECONDS = 2.0

Epochs = Sequence[Mapping[str, Any]]


def learning_curves_figure(runs: Mapping[str, Epochs]) -> Figure:
    """Four panels; `runs` maps each name in the legend to the lines of its metrics.jsonl.

    If there are more runs than distinct colours, they are coloured and named in the order of their validation F1.
    """
    many = len(runs) > len(_COLOURS)
    names = sorted(runs, key=lambda name: rank(best_epoch(runs[name])), reverse=True) if many else list(runs)
    colours = ON_WHITE(np.linspace(1, 0, len(names))) if many else _COLOURS
    shown = names[:_MOST_NAMES]
    columns = max(1, min(4, len(shown), 130 // (max(map(len, shown)) + 8)))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(9, 6.3 + 0.2 * rows), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    panels = DICE_PANELS if all("test_dice" in epoch for epochs in runs.values() for epoch in epochs) else PANELS
    for panel, (column, title) in zip(axes.flat, panels.items(), strict=True):
        for place, name in enumerate(names):
            epochs = runs[name]
            panel.plot(
                [e["epoch"] for e in epochs],
                [e[column] for e in epochs],
                # Among few a marker a point; among many only where a run of one epoch would be invisible.
                marker="" if many and len(epochs) > 1 else ".",
                label=name,
                color=colours[place],
                linewidth=_line_width(place, len(names)),
                # The best are on top.
                zorder=3 - place / len(names) if many else 2,
            )
        panel.set_title(title)
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    _set_loss_scale(axes[0, 0], runs)
    axes[1, 0].set_ylim(0, 1.02)
    for panel in axes[1]:
        panel.set_xlabel("epoch")
    _draw_legend(figure, axes[0, 0].get_lines()[: len(shown)], shown, columns, len(names))
    return figure


def _line_width(place: int, count: int) -> float:
    """The best of many runs have thick lines; the more runs there are, the thinner are the others."""
    if count <= len(_COLOURS):
        return 1.5
    return 2.5 if place < _HIGHLIGHTED else max(0.5, min(1, 30 / count))


def _set_loss_scale(panel: Axes, runs: Mapping[str, Epochs]) -> None:
    """From 0 up; logarithmic if one run's loss is so high that the others could not be told apart."""
    losses = [[e[c] for e in run for c in ("train_loss", "test_loss") if np.isfinite(e[c])] for run in runs.values()]
    highest = [max(values) for values in losses if values]
    if not highest:
        return
    if max(highest) > 10 * np.median(highest):
        panel.set_yscale("log")
    else:
        panel.set_ylim(0, 1.08 * max(highest))


def _draw_legend(figure: Figure, lines: Sequence[Line2D], shown: Sequence[str], columns: int, count: int) -> None:
    title = None
    if count > len(_COLOURS):
        left_out = f"; the last {count - len(shown)} are not named" if count > len(shown) else ""
        title = f"{count} models, the best by validation F1 first{left_out}"
    legend = figure.legend(
        lines,
        shown,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        title=title,
        fontsize="small" if len(shown) > len(_COLOURS) else "medium",
    )
    for place, text in enumerate(legend.get_texts()):
        text.set_parse_math(False)
        if count > len(_COLOURS) and place < _HIGHLIGHTED:
            text.set_fontweight("bold")


def learning_curves(folders: Folders, out: Path | None = None, *, follow: bool = False) -> None:
    """Draw training and test loss and F1 over the epochs, with one line per run.

    Args:
        folders: Run folders or sweep folders; a sweep stands for all its runs that have finished an epoch.
        out: File of the figure; figures/learning-curves.png in the first folder if not given.
        follow: Draw again after each epoch, as long as a process trains one of them.
    """
    drawn: dict[str, list[dict[str, Any]]] = {}
    while follow and any(map(is_locked, folders)):
        if (epochs := read_learning_curves(open_folders(folders))) and epochs != drawn:
            _save(epochs, folders, out)
            drawn = epochs
        time.sleep(_SECONDS)
    epochs = read_learning_curves(open_folders(folders))
    for folder in folders:
        # A user who names a run wants to see it.
        if Run(folder).kind and not read_epochs(Run(folder)):
            raise UserError(
                f"{Run(folder).metrics}: no epoch is finished yet; wait until one is, if the run has epochs"
            )
    if not epochs:
        raise UserError(f"{folders[0]}: no run has finished an epoch yet; wait until one has")
    if len({"test_dice" in of[0] for of in epochs.values()}) > 1:
        raise UserError(f"{folders[0]}: some of the runs segment and others classify; draw them one kind at a time")
    if epochs != drawn:
        _save(epochs, folders, out)


def _save(epochs: Mapping[str, Epochs], folders: Folders, out: Path | None) -> None:
    save_figure(learning_curves_figure(epochs), out or folders[0] / "figures" / "learning-curves.png")


def read_learning_curves(runs: Mapping[str, Run]) -> dict[str, list[dict[str, Any]]]:
    """The lines of metrics.jsonl, for the runs that have any."""
    return {name: epochs for name, run in runs.items() if (epochs := read_epochs(run))}
