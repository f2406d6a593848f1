"""Figures follow the data: two classes or forty, short names or long ones, nothing over the edge or over another."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from figures.class_labels import class_labels
from figures.confusion_matrices import confusion_matrices_figure
from figures.roc_curves import roc_curves_figure
from jaxcnn.evaluation.counts import confusion_matrix

LONG = (
    "Oligodendroglioma, IDH-mutant, 1p19q-codeleted",
    "Diffuse_astrocytoma_IDH-mutant_grade_2",
    "Metastasis of an unknown primary",
    "Meningioma grade $1$",
    "no_tumor",
)


def names(count: int) -> tuple[str, ...]:
    return tuple(f"{LONG[i % 5]} {i}" for i in range(count)) if count > 4 else ("no", "yes", "maybe", "glioma")[:count]


def predictions(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Every class has images but the last of many."""
    random = np.random.default_rng(classes)
    labels = (np.arange(12 * classes) % max(2, classes - (classes > 4))).astype(np.int32)
    logits = 2 * (random.normal(size=(len(labels), classes)) + np.eye(classes)[labels])
    return logits.astype(np.float32), labels


def assert_nothing_overlaps(figure: Figure, texts: list) -> None:
    """All lie in the figure, and apart."""
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert boxes
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 40])
def test_confusion_matrices(classes: int) -> None:
    logits, labels = predictions(classes)
    confusion = confusion_matrix(labels, logits.argmax(axis=1), classes)
    figure = confusion_matrices_figure({"train": confusion, "test": confusion}, names(classes))
    figure.draw_without_rendering()
    for panel in figure.axes:
        shown = [text.get_text() for text in panel.texts]
        counts = [int(text.split("\n")[0] or 0) for text in shown]
        np.testing.assert_array_equal(np.reshape(counts, (classes, classes)), confusion)
    assert_nothing_overlaps(figure, [label for panel in figure.axes for label in panel.get_yticklabels()])
    if classes != 4:  # Slanted boxes overlap though the letters don't.
        assert_nothing_overlaps(figure, [label for panel in figure.axes for label in panel.get_xticklabels()])
    # A count fits into its cell.
    for panel in figure.axes:
        cell = panel.get_window_extent().width / classes
        assert max(text.get_window_extent().width for text in panel.texts if text.get_text()) < cell


@pytest.mark.parametrize("classes", [2, 4, 10, 40])
def test_roc_curves(classes: int) -> None:
    logits, labels = predictions(classes)
    figure = roc_curves_figure(logits, labels, names(classes), "a run")
    legend = figure.axes[0].get_legend() or figure.legends[0]
    texts = legend.get_texts()
    assert len(texts) == classes + 1  # Chance, too.
    assert_nothing_overlaps(figure, texts)
    lines = figure.axes[0].get_lines()[:classes]
    assert len({(line.get_color(), str(line.get_linestyle())) for line in lines}) == classes or classes > 10
    if classes > 10:
        areas = [float(text.get_text().rpartition(": ")[2]) for text in texts[:-2]]
        assert areas == sorted(areas, reverse=True)
        assert texts[-2].get_text().endswith(": –")


def test_labels_stay_different_and_keep_their_ends() -> None:
    found = class_labels(names(40))
    assert len(set(found)) == 40
    assert all(len(label) <= 32 for label in found)
    assert class_labels(["glioma_tumor", "no_tumor", "pituitary"]) == ["glioma", "no tumor", "pituitary"]
    alike = [f"{'x' * 30}{middle}{'y' * 30}" for middle in "ab"]
    assert len(set(class_labels(alike))) == 2
