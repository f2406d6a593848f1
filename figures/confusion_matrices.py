"""Confusion matrices of a run on its training and test images: counts, and shares of each true class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from figures.class_labels import class_labels
from figures.external_data import choose_images
from figures.run_folders import Folder
from figures.run_title import run_title, set_title
from figures.saving import save_figure
from figures.scored_models import best_run
from jaxcnn.runs.folder import read_splits

# Of more classes the cells hold counts alone.
_MOST_WITH_SHARES = 12
# Up to here the names of the predicted classes are slanted, beyond they stand upright.
_MOST_SLANTED, _LONGEST_SLANTED = 5, 12


def confusion_matrices_figure(
    confusions: dict[str, Int[np.ndarray, "classes classes"]], classes: tuple[str, ...]
) -> Figure:
    """One panel per matrix; its rows are true classes and its columns predicted classes."""
    labels = class_labels(classes)
    side = max(4.9, _cell_inches(len(classes)) * len(classes) + 0.1 * max(map(len, labels)))
    figure = Figure(figsize=((side + 0.3) * len(confusions), side), layout="constrained")
    for panel, (title, confusion) in zip(
        np.atleast_1d(figure.subplots(1, len(confusions))), confusions.items(), strict=True
    ):
        _draw(panel, confusion, labels)
        panel.set_title(f"{title} ({confusion.sum()} images)")
    return figure


def _cell_inches(classes: int) -> float:
    """Room for a count and a share, for a count, or of very many classes for a small one."""
    return 0.75 if classes <= _MOST_WITH_SHARES else 0.36 if classes <= 2 * _MOST_WITH_SHARES else 0.26


def _draw(panel: Axes, confusion: Int[np.ndarray, "classes classes"], classes: list[str]) -> None:
    rows = confusion.sum(axis=1, keepdims=True)
    # A class without images has a row of zeros, not of NaN.
    shares = confusion / np.maximum(rows, 1)
    image = panel.imshow(shares, cmap="Blues", norm=Normalize(0, 1))
    with_shares = len(classes) <= _MOST_WITH_SHARES
    for (row, column), count in np.ndenumerate(confusion):
        if with_shares:
            text = f"{count}\n{shares[row, column]:.0%}" if rows[row] else "0\n–"
        else:
            text = str(count) if count else ""
        panel.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            color=_readable_on(image.to_rgba(shares[row, column])),
            fontsize="medium" if with_shares else "x-small" if len(classes) <= 2 * _MOST_WITH_SHARES else 6,
        )
    ticks = range(len(classes))
    upright = len(classes) > _MOST_SLANTED or max(map(len, classes)) > _LONGEST_SLANTED
    panel.set_xticks(ticks, classes, rotation=90 if upright else 20, parse_math=False)
    panel.set_yticks(ticks, classes, parse_math=False)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")


def _readable_on(background: Sequence[float] | Float[np.ndarray, " 4"]) -> str:
    """Black or white, whichever has the higher contrast (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def confusion_matrices(folder: Folder, data: str | None = None, out: Path | None = None) -> None:
    """Draw the confusion matrices of a run's best weights on its training and test images.

    Args:
        folder: Run folder, or a sweep folder, whose best run by validation F1 is used.
        data: Name of a data set that the run was evaluated on (`python -m train evaluate RUN --data ...`); it is shown
            instead of the training images.
        out: File of the figure; figures/confusion-matrices.png in the folder if not given.
    """
    run = best_run(folder)
    splits = ("train", "test") if data is None else ("test", choose_images(run, data)[0])
    predictions = read_splits(run, splits)
    titles = splits if data is None else ("test", data.replace("$", r"\$"))
    figure = confusion_matrices_figure(
        {title: of.confusion() for title, of in zip(titles, predictions.values(), strict=True)},
        predictions["test"].classes,
    )
    set_title(figure, run_title(run))
    save_figure(figure, out or folder / "figures" / "confusion-matrices.png")
