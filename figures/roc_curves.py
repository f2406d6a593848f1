"""ROC curves of a run on its test images: each class against all others."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from scipy.special import softmax

from figures.class_labels import class_labels
from figures.external_data import choose_images
from figures.run_folders import Folder
from figures.run_title import run_title, set_title
from figures.saving import save_figure
from figures.score_colours import ON_WHITE
from figures.scored_models import best_run
from jaxcnn.errors import UserError
from jaxcnn.evaluation import measures, roc_curve
from jaxcnn.runs.folder import read_predictions

# Wong, Points of view: Color blindness, Nature Methods 8 (2011). Dashes tell the lines apart without colour.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1)))
# More lines can't be told apart; then the colour says how high the AUC is, and the legend is in that order.
_MOST_STYLES = 10


def roc_curves_figure(
    logits: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    classes: tuple[str, ...],
    title: str,
    images: str = "test images",
) -> Figure:
    """One line per class, by its probability; none for a class without images, or if no other class has any."""
    many, inside = len(classes) > _MOST_STYLES, len(classes) <= len(_COLOURS)
    columns = 1 if inside else -(-(len(classes) + 1) // 24)
    figure = Figure(figsize=(6.4 if inside else 6.6 + 2.9 * columns, 6.4), layout="constrained")
    panel = figure.subplots()
    probabilities = softmax(logits.astype(np.float64), axis=1)
    found = measures(logits, labels)
    names, areas = class_labels(classes), found.auc[0]
    # What isn't defined comes last.
    places = np.argsort(-np.nan_to_num(areas, nan=-1), kind="stable").tolist() if many else range(len(classes))
    for rank, place in enumerate(places):
        style: dict[str, Any] = {
            "color": ON_WHITE(1 - rank / len(classes)) if many else _COLOURS[place % len(_COLOURS)],
            "linestyle": "-" if many else _DASHES[(place + place // len(_COLOURS)) % len(_DASHES)],
            "linewidth": 1.2 if many else 2,
        }
        if np.isnan(areas[place]):
            panel.plot([], [], label=f"{names[place]}: –", **style)
        else:
            curve = roc_curve(probabilities[:, place], labels == place)
            x, y = curve.false_positive_rate, curve.true_positive_rate
            panel.plot(x, y, label=f"{names[place]}: {areas[place]:.3f}", **style)
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="chance: 0.500")
    panel.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    panel.set_xlabel("false positive rate (1 - specificity)")
    panel.set_ylabel("true positive rate (sensitivity)")
    set_title(figure, f"{title}, {len(labels)} {images}", f"macro ROC AUC {found.auc_macro[0]:.3f}")
    panel.grid(alpha=0.3)
    heading = "class against all others: AUC"
    if inside:
        legend = panel.legend(title=heading, loc="lower right")
    else:
        legend = figure.legend(title=heading, loc="outside right upper", ncols=columns, fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def roc_curves(folder: Folder, data: str | None = None, out: Path | None = None) -> None:
    """Draw the ROC curves of a run on its test images, each class against all others.

    Args:
        folder: Run folder, or a sweep folder, whose best run by validation F1 is used.
        data: Name of a data set that the run was evaluated on (`python -m train evaluate RUN --data ...`); it is shown
            instead of the test images.
        out: File of the figure; figures/roc-curves.png in the folder if not given.
    """
    run = best_run(folder)
    split, images = choose_images(run, data)
    tested = read_predictions(run, split)
    if len(np.unique(tested.labels)) < 2:
        raise UserError(f"{run.predictions(split)}: all images have the same class; ROC curves need two classes")
    figure = roc_curves_figure(tested.logits, tested.labels, tested.classes, run_title(run), images)
    save_figure(figure, out or folder / "figures" / "roc-curves.png")
