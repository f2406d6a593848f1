"""The scores of runs for people (tables) and for programs (JSON)."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.evaluation import OVERALL, PER_CLASS, Estimates, Interval
from jaxcnn.evaluation.bootstrap import LEVEL
from jaxcnn.evaluation.predictions import Predictions

_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "auc_macro": "macro ROC AUC",
    "calibration_error": "calibration error",
    "brier_score": "Brier score",
    "log_loss": "log loss",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "ROC AUC",
}


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A run on a split.

    Attributes:
        folder: of the run.
        protocol: that it was trained under.
        predictions: as the run has them, before the temperature.
        temperature: that the logits were divided by; None if they were not.
        estimates: the scores.
    """

    folder: Path
    protocol: str
    predictions: Predictions
    temperature: float | None
    estimates: Estimates


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Runs side by side; if they are `compared`, it is with the last of them.

    If the images are `unseen`, those with a copy among the training images of the data set have been left out.
    """

    split: str
    resamples: int
    seed: int
    runs: tuple[Evaluated, ...]
    compared: bool
    unseen: bool

    def differences(self) -> tuple[Estimates, ...]:
        """By how much each run but the last differs from that."""
        return tuple(run.estimates - self.runs[-1].estimates for run in self.runs[:-1])


def scores_document(evaluation: Evaluation) -> dict[str, Any]:
    """What the tables tell, with all digits; what isn't defined is NaN."""
    classes = evaluation.runs[0].predictions.classes
    content: dict[str, Any] = {
        "split": evaluation.split,
        "unseen": evaluation.unseen,
        "resamples": evaluation.resamples,
        "seed": evaluation.seed,
        "level": LEVEL,
        "runs": [_describe(run) | _scores(run.estimates, classes) for run in evaluation.runs],
    }
    if evaluation.compared:
        reference = str(evaluation.runs[-1].folder)
        content["differences"] = [
            {"run": str(run.folder), "minus": reference, **_scores(difference, classes)}
            for run, difference in zip(evaluation.runs, evaluation.differences(), strict=False)
        ]
    return content


def _describe(run: Evaluated) -> dict[str, Any]:
    counts = _images(run)
    return {
        "run": str(run.folder),
        "protocol": run.protocol,
        "temperature": run.temperature,
        "images": sum(counts),
        "groups": _groups(run),
        "images_per_class": dict(zip(run.predictions.classes, counts, strict=True)),
    }


def _images(run: Evaluated) -> list[int]:
    return np.bincount(run.predictions.labels, minlength=len(run.predictions.classes)).tolist()


def _groups(run: Evaluated) -> int:
    return len(np.unique(run.predictions.groups))


def _scores(estimates: Estimates, classes: tuple[str, ...]) -> dict[str, Any]:
    found = {name: estimates.of(name) for name in (*OVERALL, *PER_CLASS)}
    return {
        "measures": {name: _interval(found[name], ()) for name in OVERALL},
        "classes": {
            label: {name: _interval(found[name], (place,)) for name in PER_CLASS} for place, label in enumerate(classes)
        },
    }


def _interval(found: Interval, place: tuple[int, ...]) -> dict[str, float]:
    return {name: float(values[place]) for name, values in vars(found).items()}


def table(evaluation: Evaluation) -> str:
    """A column a run, and one a difference if there are any."""
    which = f"{evaluation.split} images{' without a copy in Training' if evaluation.unseen else ''}"
    head = f"{which}; {LEVEL:.0%} intervals from {evaluation.resamples} resamples of their groups"
    names = _column_names([run.folder for run in evaluation.runs])
    parts = [head, _aligned([("", *names), *_run_rows(evaluation.runs)])]
    if evaluation.compared:
        found = evaluation.differences()
        heads = [f"{name} - {names[-1]}" for name in names[:-1]]
        class_heads = [(label,) for label in evaluation.runs[0].predictions.classes]
        rows = [*_overall_rows(found, "+"), *_class_rows(found, class_heads, "+")]
        parts += ["differences, each from the same resamples of both runs", _aligned([("", *heads), *rows])]
    return "\n\n".join(parts)


def _column_names(folders: list[Path]) -> list[str]:
    """The names of the folders where that tells them apart, else their paths."""
    names = [folder.name or str(folder) for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _run_rows(runs: tuple[Evaluated, ...]) -> Iterator[tuple[str, ...]]:
    yield ("protocol", *(run.protocol for run in runs))
    yield ("images", *(str(len(run.predictions.labels)) for run in runs))
    yield ("groups of near-duplicates", *(str(_groups(run)) for run in runs))
    temperatures = [run.temperature for run in runs if run.temperature is not None]
    if temperatures:
        yield ("temperature", *(f"{temperature:.3f}" for temperature in temperatures))
    yield ()
    estimates = tuple(run.estimates for run in runs)
    yield from _overall_rows(estimates)
    counts = zip(*map(_images, runs), strict=True)
    heads = [
        (label, *(f"{count} images" for count in of_runs))
        for label, of_runs in zip(runs[0].predictions.classes, counts, strict=True)
    ]
    yield from _class_rows(estimates, heads)


def _overall_rows(estimates: tuple[Estimates, ...], sign: str = "") -> Iterator[tuple[str, ...]]:
    for name in OVERALL:
        yield (_TITLES[name], *(_cell(of.of(name), (), sign) for of in estimates))


def _class_rows(
    estimates: tuple[Estimates, ...], heads: Sequence[tuple[str, ...]], sign: str = ""
) -> Iterator[tuple[str, ...]]:
    """The measures of each class, under a row of `heads`."""
    found = {name: [of.of(name) for of in estimates] for name in PER_CLASS}
    for place, head in enumerate(heads):
        yield ()
        yield head
        for name in PER_CLASS:
            yield (f"  {_TITLES[name]}", *(_cell(of, (place,), sign) for of in found[name]))


def _cell(found: Interval, place: tuple[int, ...], sign: str) -> str:
    value, low, high = (
        "–" if math.isnan(values[place]) else f"{values[place]:{sign}.3f}" for values in vars(found).values()
    )
    return value if value == "–" else f"{value} [{low}, {high}]"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell: the first to the left, the others to the right."""
    columns = max(map(len, rows))
    full = [(*row, *[""] * (columns - len(row))) for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        "  ".join([head.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]).rstrip() for head, *cells in full
    )
