"""What a network tells of an image: its class, or the class of each of its pixels. What they share is a `Task`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn.data.dataset import Split
from jaxcnn.evaluation.counts import Tally, scores
from jaxcnn.evaluation.masks import MaskPredictions, overlaps, patients_of
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.models.architecture import TaskName
from jaxcnn.tables import format_table


@dataclasses.dataclass(frozen=True)
class Task:
    """What training has to know of its task.

    Attributes:
        titles: of the scores, in tables.
        in_line: the scores that the line of an epoch shows, with their titles there.
        best: the score on the validation images that decides which epoch's weights are kept.
        in_sweeps: split and score of the columns in which a sweep compares models.
        output: what evaluation keeps of a batch's logits.
        scores: of a set, from its sums: what is known after an epoch of training.
        more_scores: of a set that was evaluated, from outputs, targets, split and names of the classes.
        predictions: what is saved of these.
    """

    titles: Mapping[str, str]
    in_line: Mapping[str, str]
    best: str
    in_sweeps: tuple[tuple[str, str], ...]
    output: Callable[[Any], Any]
    scores: Callable[[Tally], dict[str, float]]
    more_scores: Callable[[np.ndarray, np.ndarray, Split, tuple[str, ...]], dict[str, float]]
    predictions: Callable[[np.ndarray, np.ndarray, Split, tuple[str, ...]], Predictions | MaskPredictions]

    @property
    def sorts_by(self) -> str:
        """A word for what runs are ranked by."""
        return next(iter(self.in_line.values()))

    def scores_of(self, split: str) -> list[str]:
        """Names of the scores that the line of an epoch has for a split."""
        return [name for name in self.titles if split != "train" or name != "patient_dice"]


def _pixel_scores(counted: Tally) -> dict[str, float]:
    return {"loss": scores(counted).loss, "dice": float(overlaps(counted.confusion)["dice"].mean())}


def _mask_predictions(
    outputs: np.ndarray, targets: np.ndarray, split: Split, classes: tuple[str, ...]
) -> MaskPredictions:
    return MaskPredictions(outputs, targets, patients_of(split), split.names, classes)


TASKS: dict[TaskName, Task] = {
    "classification": Task(
        titles={"loss": "loss", "accuracy": "accuracy", "f1_macro": "macro F1", "f1_weighted": "weighted F1"},
        in_line={"f1_macro": "F1"},
        best="f1_macro",
        in_sweeps=(("train", "f1_macro"), ("validation", "f1_macro"), ("test", "f1_macro"), ("test", "f1_weighted")),
        output=lambda logits: logits,
        scores=lambda counted: dataclasses.asdict(scores(counted)),
        more_scores=lambda *_: {},
        predictions=lambda outputs, targets, split, classes: Predictions(
            outputs, targets, split.groups, split.names, classes
        ),
    ),
    "segmentation": Task(
        titles={"loss": "loss", "dice": "Dice of all pixels", "patient_dice": "Dice by patient"},
        in_line={"dice": "Dice", "patient_dice": "by patient"},
        best="patient_dice",
        in_sweeps=(
            ("train", "patient_dice"),
            ("validation", "patient_dice"),
            ("test", "patient_dice"),
            ("test", "dice"),
        ),
        output=lambda logits: jnp.argmax(logits, axis=-1).astype(jnp.uint8),
        scores=_pixel_scores,
        more_scores=lambda *evaluated: _mask_predictions(*evaluated).scores(),
        predictions=_mask_predictions,
    ),
}


def score_table(by_split: Mapping[str, tuple[int, Mapping[str, float]]], task: Task) -> str:
    """Format the scores of the splits as a table; each value is the number of images and their scores."""
    rows = [["", "images", *task.titles.values()]]
    for split, (images, found) in by_split.items():
        rows.append([split, str(images), *(f"{found[name]:.3f}" for name in task.titles)])
    return format_table(rows)


def task_of(epoch: Mapping[str, Any]) -> Task:
    """The task of a run, by a line of its metrics.jsonl."""
    return TASKS["segmentation" if "validation_dice" in epoch else "classification"]
