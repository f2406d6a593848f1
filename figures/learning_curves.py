"""Loss and macro F1 over the epochs, on the training and the test images; every run is a line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tyro.conf import Positional

from figures.saving import save_figure
from jaxcnn.cli import UserError
from jaxcnn.runs import open_run, read_epochs

PANELS = {
    "train_loss": "training loss",
    "test_loss": "test loss",
    "train_f1_macro": "training F1 (macro)",
    "test_f1_macro": "test F1 (macro)",
}


def learning_curves_figure(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Four panels; `runs` gives for each name in the legend the lines of its metrics.jsonl."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for panel, (column, title) in zip(axes.flat, PANELS.items(), strict=True):
        for name, epochs in runs.items():
            # A marker a point, or a run of one epoch would be invisible.
            panel.plot([e["epoch"] for e in epochs], [e[column] for e in epochs], ".-", label=name)
        panel.set_title(title)
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    highest_loss = max(
        epoch[column] for run in runs.values() for epoch in run for column in ("train_loss", "test_loss")
    )
    axes[0, 0].set_ylim(0, 1.08 * highest_loss)
    axes[1, 0].set_ylim(0, 1.02)
    for panel in axes[1]:
        panel.set_xlabel("epoch")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), frameon=False)
    return figure


def learning_curves(runs: Positional[tuple[Path, ...]], out: Path | None = None) -> None:
    """Training and test loss and F1 over the epochs, a line a run.

    Args:
        runs: run folders.
        out: the picture; RUN/figures/learning-curves.png of the first run when not given.
    """
    opened = [open_run(folder) for folder in runs]
    if not opened:
        raise UserError("RUNS: name at least one run folder")
    epochs = {run.name: read_epochs(run) for run in opened}
    for run in opened:
        if not epochs[run.name]:
            raise UserError(f"{run.metrics}: no epoch is finished yet; let the run go on")
    save_figure(learning_curves_figure(epochs), out or opened[0].figures / "learning-curves.png")
