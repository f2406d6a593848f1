"""The models of a sweep side by side: the best on the validation images first; the test images decide nothing."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.evaluation.counts import Scores, Tally, scores
from jaxcnn.runs.files import whole_file
from jaxcnn.runs.folder import Run, read_predictions
from jaxcnn.runs.trees import read_manifest


@dataclasses.dataclass(frozen=True)
class Row:
    """A model in the table.

    Attributes:
        name: of its run folder.
        values: of the swept options.
        best_epoch: by the validation images; None if it diverged.
        splits: the scores of that epoch's weights; of a model that diverged, none.
        diverged: what happened to it; empty where nothing did.
    """

    name: str
    values: Mapping[str, Any]
    best_epoch: int | None = None
    splits: Mapping[str, Scores] = dataclasses.field(default_factory=dict)
    diverged: str = ""


SCORES = (("train", "f1_macro"), ("validation", "f1_macro"), ("test", "f1_macro"), ("test", "f1_weighted"))
SCORE_NAMES = tuple(f"{split} {measure.removeprefix('f1_')} F1" for split, measure in SCORES)
SCORE_COLUMNS = tuple(f"{split}_{measure}" for split, measure in SCORES)


def read_row(run: Run, values: Mapping[str, Any]) -> Row:
    """The line of a model that has finished."""
    confusions = {split: read_predictions(run, split).confusion() for split in ("train", "validation", "test")}
    # F1 doesn't need the losses.
    splits = {split: scores(Tally(np.float64(0), confusion)) for split, confusion in confusions.items()}
    best_epoch = read_manifest(run.best, writer="python -m train")["epoch"]
    return Row(run.name, values, best_epoch, splits)


def sort_rows(rows: Sequence[Row]) -> list[Row]:
    """By macro F1 on the validation images, the highest first; models that diverged at the bottom."""
    return sorted(rows, key=lambda row: (-row.splits["validation"].f1_macro if row.splits else 1, row.name))


def format_table(rows: Sequence[Row]) -> str:
    """For people; numbers are called by the number that their folder begins with."""
    head = ["model", *rows[0].values, "best epoch", *SCORE_NAMES]
    return align([head] + [_cells(row) for row in rows])


def align(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, of which those below one another are equally wide."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)


def _cells(row: Row) -> list[str]:
    found = [f"{getattr(row.splits[split], measure):.3f}" for split, measure in SCORES if row.splits]
    best = "diverged" if row.diverged else str(row.best_epoch)
    number = row.name.split("-")[0]
    return [number, *map(str, row.values.values()), best, *(found or [""] * len(SCORES))]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """The same as CSV, with all digits."""
    head = ["model", *rows[0].values, "best_epoch", *SCORE_COLUMNS, "diverged"]
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for row in rows:
            found = [getattr(row.splits[split], measure) for split, measure in SCORES if row.splits]
            writer.writerow(
                [row.name, *row.values.values(), row.best_epoch, *(found or [""] * len(SCORES)), row.diverged]
            )
