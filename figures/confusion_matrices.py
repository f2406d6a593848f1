"""Confusion matrices of a run on its training and test images: counts, and shares of each true class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from figures.run_folders import Folder
from figures.run_title import run_title
from figures.saving import save_figure
from figures.scored_models import best_run
from jaxcnn.runs.folder import read_splits


def confusion_matrices_figure(
    confusions: dict[str, Int[np.ndarray, "classes classes"]], classes: tuple[str, ...]
) -> Figure:
    """One panel per matrix; its rows are true classes and its columns predicted classes."""
    figure = Figure(figsize=(5.2 * len(confusions), 4.9), layout="constrained")
    for panel, (title, confusion) in zip(
        np.atleast_1d(figure.subplots(1, len(confusions))), confusions.items(), strict=True
    ):
        _draw(panel, confusion, [class_name(name) for name in classes])
        panel.set_title(f"{title} ({confusion.sum()} images)")
    return figure


def _draw(panel: Axes, confusion: Int[np.ndarray, "classes classes"], classes: list[str]) -> None:
    rows = confusion.sum(axis=1, keepdims=True)
    # A class without images has a row of zeros, not of NaN.
    shares = confusion / np.maximum(rows, 1)
    image = panel.imshow(shares, cmap="Blues", norm=Normalize(0, 1))
    for (row, column), count in np.ndenumerate(confusion):
        text = f"{count}\n{shares[row, column]:.0%}" if rows[row] else "0\n–"
        panel.text(column, row, text, ha="center", va="center", color=_readable_on(image.to_rgba(shares[row, column])))
    ticks = range(len(classes))
    panel.set_xticks(ticks, classes, rotation=20)
    panel.set_yticks(ticks, classes)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")


def class_name(folder: str) -> str:
    """`glioma_tumor` becomes glioma; `no_tumor` becomes no tumor, because "no" alone says nothing."""
    return folder.replace("_", " ") if folder.startswith("no_") else folder.removesuffix("_tumor")


def _readable_on(background: Sequence[float] | Float[np.ndarray, " 4"]) -> str:
    """Black or white, whichever has the higher contrast (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def confusion_matrices(folder: Folder, out: Path | None = None) -> None:
    """Draw the confusion matrices of a run's best checkpoint on its training and test images.

    Args:
        folder: Run folder, or a sweep folder, whose best run by validation F1 is used.
        out: File of the figure; figures/confusion-matrices.png in the folder if not given.
    """
    run = best_run(folder)
    predictions, title = read_splits(run, ("train", "test")), run_title(run)
    figure = confusion_matrices_figure(
        {split: of.confusion() for split, of in predictions.items()}, predictions["test"].classes
    )
    figure.suptitle(title)
    save_figure(figure, out or folder / "figures" / "confusion-matrices.png")
