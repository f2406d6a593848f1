"""What a sweep over seeds says of each setting: the mean of its models, and how well they pin it down."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from jaxcnn.runs.files import whole_file
from train.sweep.table import SCORE_COLUMNS, SCORE_NAMES, SCORES, Row, align

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean over seeds.

    Attributes:
        mean: of the models.
        half_width: of the 95% interval by the t distribution: of the mean of ever more seeds, with these images. NaN
            for a single model.
    """

    mean: float
    half_width: float


@dataclasses.dataclass(frozen=True)
class Setting:
    """Models that differ in their seed alone.

    Attributes:
        values: of the other swept options.
        models: how many of them finished.
        scores: by split and measure, in the order of `SCORES`.
    """

    values: Mapping[str, Any]
    models: int
    scores: tuple[Estimate, ...]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval of independent draws."""
    count = len(values)
    if count < 2:
        return Estimate(float(np.mean(values)), math.nan)
    # Student's t; `scipy.stats` has it too, but takes half a second to import.
    quantile = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2))
    return Estimate(float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / math.sqrt(count))


def over_seeds(rows: Sequence[Row]) -> list[Setting]:
    """The settings, the best on the validation images first. Models that diverged count in none."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.splits:
            groups.setdefault(tuple(value for name, value in row.values.items() if name != "seed"), []).append(row)
    settings = [_setting(members) for members in groups.values()]
    validation = SCORES.index(("validation", "f1_macro"))
    return sorted(settings, key=lambda setting: -setting.scores[validation].mean)


def _setting(members: Sequence[Row]) -> Setting:
    values = {name: value for name, value in members[0].values.items() if name != "seed"}
    scores = (estimate([getattr(row.splits[split], measure) for row in members]) for split, measure in SCORES)
    return Setting(values, len(members), tuple(scores))


def format_settings(settings: Sequence[Setting]) -> str:
    """For people: mean ± half of the interval's width."""
    lines = [[*settings[0].values, "seeds", *SCORE_NAMES]]
    for setting in settings:
        found = [f"{score.mean:.3f} ± {score.half_width:.3f}" for score in setting.scores]
        lines.append([*map(str, setting.values.values()), str(setting.models), *found])
    return align(lines)


def write_settings(path: Path, settings: Sequence[Setting]) -> None:
    """The same as CSV, with all digits."""
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = (column for name in SCORE_COLUMNS for column in (name, f"{name}_half_width"))
        writer.writerow([*settings[0].values, "seeds", *columns])
        for setting in settings:
            numbers = (number for score in setting.scores for number in (score.mean, score.half_width))
            writer.writerow([*setting.values.values(), setting.models, *numbers])
