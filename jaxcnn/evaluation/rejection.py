"""Measure whether a classifier knows when it can't say: which images it calls unlike, and what its errors then are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxcnn.data.load import load_dataset
from jaxcnn.errors import UserError
from jaxcnn.evaluation.bootstrap import RESAMPLES, group_weights, interval
from jaxcnn.evaluation.external import own_images
from jaxcnn.evaluation.measures import area_under_roc
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.evaluation.risk_coverage import curves_by_doubt
from jaxcnn.inference.classifier import Classifier
from jaxcnn.inference.unlike import REJECTED, foreign_images
from jaxcnn.runs.folder import Run, read_data
from jaxcnn.tables import format_table

_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
OWN = ("validation", "test")


def measure_unlike(runs: Sequence[Run], classifier: Classifier) -> dict[str, Float[np.ndarray, " _"]]:
    """How unlike its training images a classifier finds its validation and test images, and images that are foreign.

    Raises:
        UserError: it has no such measure, or the images of the run are not where they were.
    """
    if any(trained.unlike is None for trained in classifier.members):
        names = ", ".join(str(run.folder) for run in runs)
        raise UserError(f"--unlike: {names} doesn't know how unlike its training images an image is; train again")
    images: dict[str, Any] = {name: own_images(runs[0], name).images for name in OWN}
    images |= foreign_images(images["test"].shape[1])
    if read_data(runs[0])["source"] != "phantom":
        images["phantom"] = load_dataset("phantom", 100).splits["test"].images
    scores = {name: classifier.unlike(pictures) for name, pictures in images.items()}
    return {name: found for name, found in scores.items() if found is not None}


def unlike_document(scores: Mapping[str, np.ndarray], predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """What the measure is worth, for JSON.

    Args:
        scores: what `measure_unlike` gives.
        predictions: the predictions for the run's own images, by split.
    """
    sets = {}
    for name, score in scores.items():
        before = OWN[: OWN.index(name) if name in OWN else None]
        auroc = {own: _auroc(scores[own], predictions[own].groups, score) for own in before}
        sets[name] = {"images": len(score), "unlike": float((score > 1).mean()), "auroc_against": auroc}
    curves = curves_by_doubt(predictions["test"], scores["test"])
    last = {coverage: max(0, round(coverage * len(scores["test"])) - 1) for coverage in _COVERAGES}
    accuracy = {
        name: {str(coverage): 1 - float(curve.risk[place]) for coverage, place in last.items()}
        for name, curve in curves.items()
    }
    areas = {name: curve.area for name, curve in curves.items()}
    answered = scores["test"] <= 1
    right = predictions["test"].logits.argmax(axis=1) == predictions["test"].labels
    at_threshold = {"coverage": float(answered.mean()), "accuracy": float(right[answered].mean())}
    return {
        "rejected_by_construction": REJECTED,
        "sets": sets,
        "accuracy_at_coverage": accuracy,
        "area_under_risk_coverage": areas,
        "at_threshold": at_threshold,
    }


def _auroc(
    own: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"], other: Float[np.ndarray, " m"]
) -> dict[str, float]:
    """How often an image of the other set scores higher than one of the own; the own ones are drawn by their groups."""
    scores, is_other = np.concatenate([own, other]).astype(np.float64), np.arange(len(own) + len(other)) >= len(own)
    value = area_under_roc(scores, is_other, np.ones((1, len(scores))))
    every = np.concatenate([groups, groups.max() + 1 + np.arange(len(other))])
    drawn = [area_under_roc(scores, is_other, weights) for weights in group_weights(every, RESAMPLES, seed=0)]
    low, high = interval(np.concatenate(drawn))
    return {"value": float(value[0]), "low": float(low), "high": float(high)}


def unlike_table(document: Mapping[str, Any]) -> str:
    """The same as text."""
    rows = [("images", "number", "unlike", *(f"AUROC to {own}" for own in OWN))]
    for name, measured in document["sets"].items():
        cells = [
            f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" for auc in measured["auroc_against"].values()
        ]
        rows.append((name, str(measured["images"]), f"{measured['unlike']:.3f}", *cells))
    accuracy, areas, at = (document[k] for k in ("accuracy_at_coverage", "area_under_risk_coverage", "at_threshold"))
    curves = [("test images answered", *(f"{float(coverage):.0%}" for coverage in accuracy["unlike"]), "mean risk")]
    for name, title in (("unlike", "accuracy, least unlike first"), ("probability", "accuracy, most probable first")):
        curves.append((title, *(f"{value:.3f}" for value in accuracy[name].values()), f"{areas[name]:.4f}"))
    threshold = f"not called unlike: {at['coverage']:.1%} of the test images, with an accuracy of {at['accuracy']:.3f}"
    return "\n\n".join([format_table(rows), format_table(curves), threshold])
