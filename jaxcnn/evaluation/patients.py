"""Score masks by patient and by slice, with intervals from resampled patients, and their tables."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from jaxcnn.evaluation.bootstrap import RESAMPLES, interval
from jaxcnn.evaluation.masks import MEASURES, MaskPredictions, by_patient, hausdorff95, overlaps
from jaxcnn.runs.files import write_csv
from jaxcnn.tables import format_table

# Of the numbers that `score_patients` gives for each patient: those that are summarised, with their titles.
SUMMARISED = {
    "dice": "Dice by patient, mean",
    "median_dice": "Dice by patient, median",
    "iou": "IoU by patient",
    "sensitivity": "sensitivity by patient",
    "precision": "precision by patient",
    "hausdorff95": "Hausdorff 95 by patient",
    "slice_dice": "Dice by slice",
    "slice_iou": "IoU by slice",
}

PatientScores = dict[str, Float64[np.ndarray, " patients"] | Int[np.ndarray, " patients"]]


def score_patients(masks: MaskPredictions) -> PatientScores:
    """Score each patient, in the order of their names.

    Dice, IoU, sensitivity and precision are of all the patient's pixels together, as the hub network's authors take
    them; `slice_dice` and `slice_iou` are means over the patient's slices, and `hausdorff95`, in pixels, over those
    that have a tumour in both masks. Of several classes all are means over those in which they are defined.
    """
    counts = masks.confusions()
    found = {name: _mean(values) for name, values in overlaps(by_patient(counts, masks.patients)).items()}
    of_slices = overlaps(counts)
    distances = [
        [hausdorff95(predicted == label, true == label) for label in range(1, len(masks.classes))]
        for predicted, true in zip(masks.predicted, masks.true, strict=True)
    ]
    slices = {"hausdorff95": np.array(distances), **{f"slice_{name}": of_slices[name] for name in ("dice", "iou")}}
    places = [np.flatnonzero(np.array(masks.patients) == name) for name in masks.patient_names]
    found |= {
        name: np.array([_mean(np.asarray(_mean(values))[own]) for own in places]) for name, values in slices.items()
    }
    tumour = np.asarray(masks.true.any(axis=(1, 2)))
    found["slices"] = np.array([len(own) for own in places])
    found["marked_slices"] = np.array([tumour[own].sum() for own in places])
    return found


def _mean(values: Float64[np.ndarray, "*of n"]) -> Float64[np.ndarray, "*of"]:
    """Over what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    count = np.asarray(known.sum(axis=-1))
    return np.where(count > 0, np.where(known, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def summarise_patients(
    scores: PatientScores, resamples: int = RESAMPLES, *, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """The value and the bounds of the 95% interval of each of `SUMMARISED`.

    A resample draws as many patients as there are, with replacement; see `jaxcnn.evaluation.bootstrap`.
    """
    count = len(scores["dice"])
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    found = {}
    for name in SUMMARISED:
        (value,) = _summary(scores, name, np.arange(count)[np.newaxis])
        low, high = interval(_summary(scores, name, drawn))
        found[name] = float(value), float(low), float(high)
    return found


def _summary(scores: PatientScores, name: str, rows: Int[np.ndarray, "r patients"]) -> Float64[np.ndarray, " r"]:
    if name == "median_dice":
        return np.median(scores["dice"][rows], axis=1)
    if name.startswith("slice_"):
        return (scores[name] * scores["slices"])[rows].sum(axis=1) / scores["slices"][rows].sum(axis=1)
    return _mean(scores[name][rows])


def patient_table(masks: MaskPredictions, scores: PatientScores) -> str:
    """One line per patient."""
    lines = [["patient", "slices", "with a mask", "Dice", "IoU", "sensitivity", "precision", "Hausdorff 95"]]
    for place, name in enumerate(masks.patient_names):
        counted = [str(scores[column][place]) for column in ("slices", "marked_slices")]
        lines.append([name, *counted, *(_shown(scores[column][place]) for column in (*MEASURES, "hausdorff95"))])
    return format_table(lines)


def summary_table(names: Sequence[str], summaries: Sequence[Mapping[str, tuple[float, float, float]]]) -> str:
    """A column per run: each score with its interval."""
    rows = [["", *names]]
    for name, title in SUMMARISED.items():
        cells = [summary[name] for summary in summaries]
        rows.append([title, *(f"{_shown(value)} [{_shown(low)}, {_shown(high)}]" for value, low, high in cells)])
    return format_table(rows)


def _shown(number: float) -> str:
    return "–" if math.isnan(number) else f"{number:.3f}"


def masks_document(
    masks: MaskPredictions, scores: PatientScores, summary: Mapping[str, tuple[float, float, float]]
) -> dict[str, Any]:
    """What --json prints of a run."""
    patients = {
        name: {column: values[place].item() for column, values in scores.items()}
        for place, name in enumerate(masks.patient_names)
    }
    measures = {name: dict(zip(("value", "low", "high"), interval, strict=True)) for name, interval in summary.items()}
    return {"measures": measures, "patients": patients}


def write_patients(path: Path, rows: Sequence[tuple[Mapping[str, Any], MaskPredictions, PatientScores]]) -> None:
    """Write one line per patient as CSV, after some columns that say which run it is.

    Raises:
        UserError: the file can't be written.
    """
    columns = ("slices", "marked_slices", *MEASURES, "hausdorff95", "slice_dice", "slice_iou")
    lines: list[list[Any]] = [[*rows[0][0], "patient", *columns]]
    for about, masks, scores in rows:
        for place, name in enumerate(masks.patient_names):
            numbers = (scores[column][place].item() for column in columns)
            lines.append([*about.values(), name, *("" if math.isnan(n) else n for n in numbers)])
    write_csv(path, lines)
