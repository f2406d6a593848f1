"""Format the scores of runs as tables and as JSON."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.evaluation import OVERALL, PER_CLASS, Estimates, Interval
from jaxcnn.evaluation.bootstrap import LEVEL
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.tables import format_table

UNKNOWN = "unknown"
"""The protocol of what was trained elsewhere, or how many images are copies of images that are gone."""

TITLES = {
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
    """A run on a split, or several together.

    Attributes:
        name: the folder of the run, or what several are together.
        protocol: that it was trained under.
        predictions: before the temperature; of a mean over runs, those of one of them.
        temperature: that the logits were divided by; None if they were not.
        estimates: the scores.
        copies: how many images of another data set are copies of images that the run was trained on or chosen by;
            None for the run's own images, and for those of which it can't be told any more UNKNOWN.
    """

    name: str
    protocol: str
    predictions: Predictions
    temperature: float | None
    estimates: Estimates
    copies: int | str | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Runs side by side; if they are `compared`, it is with the last of them.

    If the images are `unseen`, those with a copy among the training images have been left out.

    Attributes:
        images: which they are, in words.
        data: another data set that they are from, if it isn't the runs' own.
        classes: of that: each class, the runs' that it is taken for, and its images.
    """

    split: str
    resamples: int
    seed: int
    runs: tuple[Evaluated, ...]
    compared: bool
    unseen: bool
    images: str
    data: str | None = None
    classes: tuple[tuple[str, str, int], ...] = ()

    def differences(self) -> tuple[Estimates, ...]:
        """Subtract the last run's scores from those of each other run."""
        return tuple(run.estimates - self.runs[-1].estimates for run in self.runs[:-1])


def scores_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of the tables with all digits; undefined scores are NaN."""
    classes = evaluation.runs[0].predictions.classes
    data_classes = [{"name": name, "as": own, "images": count} for name, own, count in evaluation.classes]
    content: dict[str, Any] = {
        "split": evaluation.split,
        **({} if evaluation.data is None else {"data": evaluation.data, "data_classes": data_classes}),
        "unseen": evaluation.unseen,
        "resamples": evaluation.resamples,
        "seed": evaluation.seed,
        "level": LEVEL,
        "runs": [_describe(run) | _scores(run.estimates, classes) for run in evaluation.runs],
    }
    if evaluation.compared:
        reference = evaluation.runs[-1].name
        content["differences"] = [
            {"run": run.name, "minus": reference, **_scores(difference, classes)}
            for run, difference in zip(evaluation.runs, evaluation.differences(), strict=False)
        ]
    return content


def _describe(run: Evaluated) -> dict[str, Any]:
    counts, known = _images(run), None if run.copies == UNKNOWN else run.copies
    return {
        "run": run.name,
        "protocol": run.protocol,
        "temperature": run.temperature,
        "images": sum(counts),
        "groups": _groups(run),
        **({} if run.copies is None else {"copies_of_training_images": known}),
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
    """Format the scores with one column for each run, and one for each difference."""
    head = f"{evaluation.images}; {LEVEL:.0%} intervals from {evaluation.resamples} resamples of groups"
    names = _column_names([run.name for run in evaluation.runs])
    parts = [head, format_table([("", *names), *_run_rows(evaluation.runs)])]
    # Which class of another data set is taken for which of the runs'.
    if matched := [(name, own, str(count)) for name, own, count in evaluation.classes]:
        parts.insert(0, format_table([("class in the data", "class of the run", "images"), *matched]))
    if evaluation.compared:
        found = evaluation.differences()
        heads = [f"{name} - {names[-1]}" for name in names[:-1]]
        class_heads = [(label,) for label in evaluation.runs[0].predictions.classes]
        rows = [*_overall_rows(found, "+"), *_class_rows(found, class_heads, "+")]
        parts += ["differences, with the same resamples for both runs", format_table([("", *heads), *rows])]
    return "\n\n".join(parts)


def _column_names(paths: list[str]) -> list[str]:
    """The names of the folders where that tells them apart, else their paths."""
    names = [Path(path).name or path for path in paths]
    return names if len(set(names)) == len(names) else paths


def _run_rows(runs: tuple[Evaluated, ...]) -> Iterator[tuple[str, ...]]:
    yield ("protocol", *(run.protocol for run in runs))
    yield ("images", *(str(len(run.predictions.labels)) for run in runs))
    yield ("groups (copies, patients)", *(str(_groups(run)) for run in runs))
    if any(run.copies is not None for run in runs):
        yield ("copies of training images", *(str(run.copies) for run in runs))
    if any(run.temperature is not None for run in runs):
        yield ("temperature", *("–" if run.temperature is None else f"{run.temperature:.3f}" for run in runs))
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
        yield (TITLES[name], *(score_cell(each.of(name), (), sign) for each in estimates))


def _class_rows(
    estimates: tuple[Estimates, ...], heads: Sequence[tuple[str, ...]], sign: str = ""
) -> Iterator[tuple[str, ...]]:
    """The measures of each class, under a row of `heads`."""
    found = {name: [each.of(name) for each in estimates] for name in PER_CLASS}
    for place, head in enumerate(heads):
        yield ()
        yield head
        for name in PER_CLASS:
            yield (f"  {TITLES[name]}", *(score_cell(interval, (place,), sign) for interval in found[name]))


def score_cell(found: Interval, place: tuple[int, ...], sign: str = "") -> str:
    """A score, its value at this place, with its interval."""
    value, low, high = (
        "–" if math.isnan(values[place]) else f"{values[place]:{sign}.3f}" for values in vars(found).values()
    )
    return value if value == "–" else f"{value} [{low}, {high}]"
