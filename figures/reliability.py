"""Reliability diagram: accuracy against confidence, before and after temperature scaling."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.external_data import choose_images
from figures.run_folders import Folder
from figures.run_title import run_title, set_title
from figures.saving import save_figure
from figures.scored_models import best_run
from jaxcnn.errors import UserError
from jaxcnn.evaluation import Reliability, fit_temperature, measures, reliability
from jaxcnn.runs.folder import read_splits

# Wong, Points of view: Color blindness, Nature Methods 8 (2011); they differ in lightness, too.
_BARS, _GAP = "#0072b2", "#d55e00"


def reliability_figure(
    logits: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    temperature: float,
    title: str,
    images: str = "test images",
) -> Figure:
    """Accuracy and number of images by confidence, for the logits and for the logits divided by the temperature."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    scaled = logits.astype(np.float64) / temperature
    parts = {"before temperature scaling": logits, f"after temperature scaling (T = {temperature:.3g})": scaled}
    for (upper, lower), (name, values) in zip(axes.T, parts.items(), strict=True):
        _draw_bins(upper, lower, reliability(values, labels))
        error = measures(values, labels).calibration_error[0]
        upper.set_title(f"{name}\ncalibration error (ECE) {error:.3f}")
    set_title(figure, f"{title}, {len(labels)} {images}")
    # Otherwise the last number of one axis would touch the first of the next.
    figure.set_layout_engine("constrained", wspace=0.06)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("images")
    # Room for the numbers above the bars.
    axes[1, 0].set_ylim(0, 1.25 * axes[1, 0].get_ylim()[1])
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def _draw_bins(upper: Axes, lower: Axes, found: Reliability) -> None:
    bins = len(found.counts)
    full = found.counts > 0
    middle = (np.arange(bins)[full] + 0.5) / bins
    accuracy, confidence, counts = found.accuracy[full], found.confidence[full], found.counts[full]
    upper.bar(middle, accuracy, 1 / bins, color=_BARS, edgecolor="white", label="accuracy of the bin")
    upper.plot([0, 1], [0, 1], "--", color="0.4", label="accuracy = confidence")
    # The gap is drawn at the mean confidence of the bin, which need not be its middle.
    upper.vlines(confidence, accuracy, confidence, color=_GAP, linewidth=2, label="gap to the mean confidence")
    upper.plot(confidence, confidence, "o", color=_GAP, markersize=4)
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    lower.bar(middle, counts, 1 / bins, color=_BARS, edgecolor="white")
    for x, count in zip(middle, counts, strict=True):
        lower.annotate(
            str(count), (x, count), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize="small"
        )
    lower.set_xlabel("confidence (probability of the predicted class)")
    for panel in (upper, lower):
        panel.spines[["top", "right"]].set_visible(False)


def reliability_diagram(folder: Folder, data: str | None = None, out: Path | None = None) -> None:
    """Draw the reliability diagram of a run on its test images, before and after temperature scaling.

    Args:
        folder: Run folder, or a sweep folder, whose best run by validation F1 is used.
        data: Name of a data set that the run was evaluated on (`python -m train evaluate RUN --data ...`); it is shown
            instead of the test images.
        out: File of the figure; figures/reliability.png in the folder if not given.
    """
    run = best_run(folder)
    split, images = choose_images(run, data)
    validation, tested = read_splits(run, ("validation", split)).values()
    try:
        temperature = fit_temperature(validation.logits, validation.labels)
    except ValueError as error:
        raise UserError(
            f"{run.folder}: a temperature can't be fitted on its validation images: {error}; choose another run"
        ) from error
    figure = reliability_figure(tested.logits, tested.labels, temperature, run_title(run), images)
    save_figure(figure, out or folder / "figures" / "reliability.png")
