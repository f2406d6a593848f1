"""Find the images whose label no run agrees with, while all runs agree on another class."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from jaxcnn.cli import needed
from jaxcnn.errors import UserError
from jaxcnn.evaluation.evaluate import Split, check_same_classes, check_same_images
from jaxcnn.evaluation.measures import measures
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.files import write_csv
from jaxcnn.runs.folder import open_folders, open_run, read_predictions
from jaxcnn.tables import format_table


@dataclasses.dataclass(frozen=True)
class Doubts:
    """What several models think of the labels of the same images.

    Attributes:
        questioned: all models predict one class, and it isn't the label.
        predicted: the class of the highest mean probability.
        mean_probability: of that class, over the models.
        lowest_probability: of that class, by the model that is least sure of it.
    """

    questioned: Bool[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    mean_probability: Float[np.ndarray, " n"]
    lowest_probability: Float[np.ndarray, " n"]


def question_labels(models: Sequence[Predictions]) -> Doubts:
    """Compare the labels with what all models predict for the same images."""
    each = np.stack([softmax(model.logits.astype(np.float64), axis=1) for model in models])
    votes, mean = each.argmax(axis=2), each.mean(axis=0)
    predicted = mean.argmax(axis=1)
    of_predicted = np.take_along_axis(each, predicted[None, :, None], axis=2)[..., 0]
    questioned = (votes == votes[0]).all(axis=0) & (votes[0] != models[0].labels)
    return Doubts(questioned, predicted, of_predicted.mean(axis=0), of_predicted.min(axis=0))


def check_labels(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, needed("RUN [RUN ...]")],
    *,
    split: Split = "test",
    csv_file: Annotated[Path | None, tyro.conf.arg(name="csv", metavar="FILE")] = None,
) -> None:
    """List the images whose label no run agrees with, while all runs agree on another class.

    Such an image may have a wrong label, or it may mislead all of them; only a person who looks at it can tell. Give
    runs of different kinds: what several seeds of one network agree on, they may agree on for one wrong reason.

    Args:
        runs: At least two run folders with the same images; of a sweep folder, all its runs.
        split: Images to check.
        csv_file: Write one line per listed image to this file.
    """
    opened = [open_run(run.folder) for run in open_folders(runs)]
    if len(opened) < 2:
        raise UserError("RUN: name at least two runs, or a sweep; a single model's errors say little about the labels")
    models = [read_predictions(run, split) for run in opened]
    check_same_classes(opened, models)
    check_same_images(opened, models)
    doubts = question_labels(models)
    print(_table(models, doubts, split))
    print(f"\nScores of all {split} images, and of those whose label some run agrees with (a look, not a result:")
    print("leaving out what all models get wrong raises every score):\n")
    kept = np.flatnonzero(~doubts.questioned)
    rows = [["", "accuracy", "macro F1", "accuracy", "macro F1"], ["", "all", "all", "without", "without"]]
    for run, model in zip(opened, models, strict=True):
        cells = [score for part in (model, model.take(kept)) for score in _scores(part)]
        rows.append([str(run.folder), *cells])
    print(format_table(rows))
    if csv_file is not None:
        _write(csv_file, models[0], doubts)


def _scores(predictions: Predictions) -> tuple[str, str]:
    found = measures(predictions.logits, predictions.labels)
    return f"{found.accuracy[0]:.3f}", f"{found.f1_macro[0]:.3f}"


def _table(models: Sequence[Predictions], doubts: Doubts, split: str) -> str:
    first, questioned = models[0], doubts.questioned
    head = (
        f"{questioned.sum()} of {len(questioned)} {split} images have a label that none of {len(models)} runs agrees"
        " with, while all agree on another class"
    )
    rows = [("label", "images", "questioned", *(f"as {name}" for name in first.classes))]
    for place, name in enumerate(first.classes):
        own = first.labels == place
        taken = np.bincount(doubts.predicted[own & questioned], minlength=len(first.classes))
        rows.append((name, str(own.sum()), str((own & questioned).sum()), *map(str, taken)))
    return f"{head}\n\n{format_table(rows)}"


def _write(path: Path, first: Predictions, doubts: Doubts) -> None:
    """The surest first."""
    listed = np.flatnonzero(doubts.questioned)
    listed = listed[np.argsort(-doubts.mean_probability[listed], kind="stable")]
    lines: list[list[Any]] = [["image", "label", "predicted", "mean_probability", "lowest_probability"]]
    for place in listed:
        label, predicted = (first.classes[classes[place]] for classes in (first.labels, doubts.predicted))
        probabilities = (float(values[place]) for values in (doubts.mean_probability, doubts.lowest_probability))
        lines.append([first.names[place], label, predicted, *probabilities])
    write_csv(path, lines)
