"""How many answers of a run are wrong, if it answers only the images that it doubts least."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from figures.run_folders import Folder
from figures.run_title import run_title, set_title
from figures.saving import save_figure
from figures.scored_models import best_run
from jaxcnn.evaluation.risk_coverage import RiskCoverage, curves_by_doubt
from jaxcnn.runs.folder import read_predictions, read_unlike

_STYLES = {
    "probability": ("least probable class left out first", "#0072b2", "-"),
    "unlike": ("most unlike the training images left out first", "#d55e00", "--"),
}


def risk_coverage_figure(curves: Mapping[str, RiskCoverage], title: str, threshold: float | None = None) -> Figure:
    """A line for each kind of doubt in what `curves_by_doubt` gives.

    The threshold, to be marked, is the share of the images that are not called unlike; None where that isn't known.
    """
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    panel = figure.subplots()
    for name, curve in curves.items():
        text, colour, line = _STYLES[name]
        label = f"{text}: mean {curve.area:.3f}"
        panel.plot(curve.coverage, curve.risk, line, color=colour, linewidth=2, label=label)
    if threshold is not None:
        panel.axvline(threshold, color="0.5", linewidth=1, linestyle=":", label="called unlike to the right")
    panel.set(xlim=(0, 1), xlabel="coverage: share of the images that are answered")
    panel.set_ylim(bottom=0)
    panel.set_ylabel("risk: share of the answers that are wrong")
    set_title(figure, title)
    panel.grid(alpha=0.3)
    figure.legend(loc="outside lower center")
    return figure


def risk_coverage_of(folder: Path) -> Figure:
    """The figure of a run, with what `python -m train evaluate RUN --unlike` has left in its folder."""
    run = best_run(folder)
    tested, unlike = read_predictions(run, "test"), read_unlike(run).get("test")
    threshold = None if unlike is None else float((unlike <= 1).mean())
    title = f"{run_title(run)}, {len(tested.labels)} test images"
    return risk_coverage_figure(curves_by_doubt(tested, unlike), title, threshold)


def risk_coverage(folder: Folder, out: Path | None = None) -> None:
    """Draw which share of a run's answers is wrong, if it answers only the test images that it doubts least.

    After `python -m train evaluate RUN --unlike` there is a second line, for images unlike the training images.

    Args:
        folder: Run folder, or a sweep folder, whose best run by validation F1 is used.
        out: File of the figure; figures/risk-coverage.png in the folder if not given.
    """
    save_figure(risk_coverage_of(folder), out or folder / "figures" / "risk-coverage.png")
