"""Compare the models of a sweep, and average each setting over its seeds or folds.

The best on the validation images comes first; the test images decide nothing.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from jaxcnn.data.dataset import SPLITS
from jaxcnn.evaluation.counts import Tally
from jaxcnn.evaluation.tasks import TASKS, Task
from jaxcnn.inference.trained import read_description
from jaxcnn.models.architecture import TaskName
from jaxcnn.runs.files import write_csv
from jaxcnn.runs.folder import Run, read_masks, read_predictions
from jaxcnn.tables import format_table

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Row:
    """A model.

    Attributes:
        best_epoch: by the validation images; None if it diverged.
        splits: the scores of that epoch's weights; of a model that diverged, none.
        diverged: what happened to it; empty where nothing did.
    """

    name: str
    values: Mapping[str, Any]
    best_epoch: int | None = None
    splits: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    diverged: str = ""
    task: Task = TASKS["classification"]

    @property
    def scores(self) -> list[float]:
        """In the order of the task's `in_sweeps`; none of a model that diverged."""
        return [self.splits[split][measure] for split, measure in self.task.in_sweeps if self.splits]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean over seeds or folds.

    Attributes:
        half_width: of the 95% interval by the t distribution: of the mean of ever more seeds, with these images. NaN
            for a single model. Folds share most of their training images, so that of folds it is an approximation.
    """

    mean: float
    half_width: float


@dataclasses.dataclass(frozen=True)
class Setting:
    """Models that differ in their seed or their fold alone.

    Attributes:
        values: of the other swept options.
        models: how many of them finished; of cross-validation, how many folds have one that did.
        scores: in the order of the task's `in_sweeps`.
    """

    values: Mapping[str, Any]
    models: int
    scores: tuple[Estimate, ...]
    task: Task

    @property
    def rank(self) -> float:
        """Lower is better, on the validation images."""
        return -self.scores[self.task.in_sweeps.index(("validation", self.task.best))].mean


def read_row(run: Run, values: Mapping[str, Any], task: TaskName) -> Row:
    """Make the row of a finished model."""
    splits = {split: _read_scores(run, split, task) for split in SPLITS}
    return Row(run.name, values, read_description(run.best)["epoch"], splits, task=TASKS[task])


def _read_scores(run: Run, split: str, task: TaskName) -> dict[str, float]:
    if task == "segmentation":
        return read_masks(run, split).scores()
    # F1 doesn't need the losses.
    return TASKS[task].scores(Tally(np.float64(0), read_predictions(run, split).confusion()))


def sort_rows(rows: Sequence[Row]) -> list[Row]:
    """Sort by the best score on the validation images, highest first; models that diverged come last."""
    return sorted(rows, key=lambda row: (-row.splits["validation"][row.task.best] if row.splits else 1, row.name))


def format_models(rows: Sequence[Row]) -> str:
    """Format the models as a table, each named by the number at the start of its folder."""
    lines = [["model", *rows[0].values, "best epoch", *_score_names(rows[0].task)]]
    for row in rows:
        best = "diverged" if row.diverged else str(row.best_epoch)
        found = [f"{score:.3f}" for score in row.scores]
        lines.append([row.name.split("-")[0], *map(str, row.values.values()), best, *found])
    return format_table(lines)


def write_models(path: Path, rows: Sequence[Row]) -> None:
    """The same as CSV, with all digits."""
    columns = _score_columns(rows[0].task)
    head: list[Any] = ["model", *rows[0].values, "best_epoch", *columns, "diverged"]
    lines = [
        [row.name, *row.values.values(), row.best_epoch, *(row.scores or [""] * len(columns)), row.diverged]  # type: ignore[list-item]
        for row in rows
    ]
    write_csv(path, [head, *lines])


def _score_names(task: Task) -> list[str]:
    return [f"{split} {task.titles[measure]}" for split, measure in task.in_sweeps]


def _score_columns(task: Task) -> list[str]:
    return [f"{split}_{measure}" for split, measure in task.in_sweeps]


def mean_and_interval(values: Sequence[float]) -> Estimate:
    """Compute the mean and 95% interval of independent values."""
    count = len(values)
    if count < 2:
        return Estimate(float(np.mean(values)), math.nan)
    # Student's t; `scipy.stats` has it too, but takes half a second to import.
    quantile = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2))
    return Estimate(float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / math.sqrt(count))


def average_over_seeds(rows: Sequence[Row]) -> list[Setting]:
    """Summarise each setting over its seeds, best on the validation images first, without diverged models."""
    return _averaged("seed", [(row.values, row.scores) for row in rows if row.splits], rows[0].task)


def average_over_folds(rows: Sequence[Row]) -> list[Setting]:
    """The settings of a cross-validation, likewise; of several seeds of a fold the mean counts."""
    by_fold = [(each.values, [score.mean for score in each.scores]) for each in average_over_seeds(rows)]
    return _averaged("fold", by_fold, rows[0].task)


def _averaged(option: str, scored: Sequence[tuple[Mapping[str, Any], Sequence[float]]], task: Task) -> list[Setting]:
    """The settings of models, each with its options and scores, that differ in this option alone."""
    groups: dict[tuple[tuple[str, Any], ...], list[Sequence[float]]] = {}
    for values, scores in scored:
        others = tuple((name, value) for name, value in values.items() if name != option)
        groups.setdefault(others, []).append(scores)
    settings = [
        Setting(dict(others), len(members), tuple(map(mean_and_interval, zip(*members, strict=True))), task)
        for others, members in groups.items()
    ]
    return sorted(settings, key=lambda setting: setting.rank)


def format_settings(settings: Sequence[Setting], over: str = "seeds") -> str:
    """Format the settings as a table of mean ± half of the interval's width."""
    lines = [[*settings[0].values, over, *_score_names(settings[0].task)]]
    for setting in settings:
        found = [f"{score.mean:.3f} ± {score.half_width:.3f}" for score in setting.scores]
        lines.append([*map(str, setting.values.values()), str(setting.models), *found])
    return format_table(lines)


def write_settings(path: Path, settings: Sequence[Setting], over: str = "seeds") -> None:
    """The same as CSV, with all digits."""
    columns = (column for name in _score_columns(settings[0].task) for column in (name, f"{name}_half_width"))
    lines: list[list[Any]] = [[*settings[0].values, over, *columns]]
    for setting in settings:
        numbers = (number for score in setting.scores for number in (score.mean, score.half_width))
        lines.append([*setting.values.values(), setting.models, *numbers])
    write_csv(path, lines)
