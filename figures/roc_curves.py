"""ROC curves of a run on its test images: each class against all others."""

from itertools import cycle
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from scipy.special import softmax

from figures.confusion_matrices import class_name
from figures.run_folders import Folder
from figures.run_title import run_title
from figures.saving import save_figure
from figures.scored_models import best_run
from jaxcnn.errors import UserError
from jaxcnn.evaluation import measures, roc_curve
from jaxcnn.runs.folder import read_predictions

# Wong, Points of view: Color blindness, Nature Methods 8 (2011). Dashes tell the lines apart without colour.
_STYLES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#cc79a7", ":"), ("#000000", (0, (6, 1, 1, 1))))


def roc_curves_figure(
    logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], classes: tuple[str, ...], title: str
) -> Figure:
    """One line per class, by its probability; none for a class without images, or if no other class has any."""
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    panel = figure.subplots()
    probabilities = softmax(logits.astype(np.float64), axis=1)
    found = measures(logits, labels)
    for place, (colour, dashes) in zip(range(len(classes)), cycle(_STYLES), strict=False):
        name, area = class_name(classes[place]), found.auc[0, place]
        if np.isnan(area):
            panel.plot([], [], color=colour, linestyle=dashes, label=f"{name}: –")
        else:
            curve = roc_curve(probabilities[:, place], labels == place)
            x, y = curve.false_positive_rate, curve.true_positive_rate
            panel.plot(x, y, color=colour, linestyle=dashes, linewidth=2, label=f"{name}: {area:.3f}")
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="chance: 0.500")
    panel.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    panel.set_xlabel("false positive rate (1 - specificity)")
    panel.set_ylabel("true positive rate (sensitivity)")
    panel.set_title(f"{title}, {len(labels)} test images\nmacro ROC AUC {found.auc_macro[0]:.3f}")
    panel.grid(alpha=0.3)
    panel.legend(title="class against all others: AUC", loc="lower right")
    return figure


def roc_curves(folder: Folder, out: Path | None = None) -> None:
    """Draw the ROC curves of a run on its test images, each class against all others.

    Args:
        folder: Run folder, or a sweep folder, whose best run by validation F1 is used.
        out: File of the figure; figures/roc-curves.png in the folder if not given.
    """
    run = best_run(folder)
    test = read_predictions(run, "test")
    if len(np.unique(test.labels)) < 2:
        raise UserError(f"{run.predictions('test')}: all images have the same class; ROC curves need two classes")
    figure = roc_curves_figure(test.logits, test.labels, test.classes, run_title(run))
    save_figure(figure, out or folder / "figures" / "roc-curves.png")
