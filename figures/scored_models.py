"""A model of a sweep: its options, and the scores of its best epoch."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from figures.run_folders import open_folders
from jaxcnn.errors import UserError
from jaxcnn.evaluation import measures
from jaxcnn.runs.folder import (
    SPLITS,
    Run,
    best_epoch,
    open_run,
    rank,
    read_config,
    read_epochs,
    read_predictions,
)


@dataclasses.dataclass(frozen=True)
class Model:
    """A run, with the scores of its best epoch by validation F1.

    Attributes:
        name: a short name that no other model has.
        scores: the line of the best epoch in metrics.jsonl. A run without epochs has the scores of its predictions if
            it is a baseline, and none if it failed before its first epoch ended.
    """

    name: str
    run: Run
    config: Mapping[str, Any]
    scores: Mapping[str, float]

    @property
    def kind(self) -> str:
        """The network or the baseline."""
        return str(self.config.get("model") or self.config.get("baseline") or "unknown")

    def value(self, quantity: str) -> float:
        """An option by its name in config.json or a score by its name in metrics.jsonl; NaN if there is none."""
        # The options come last: a line of metrics.jsonl has the learning rate of its epoch.
        found = {**self.scores, **self.config}.get(quantity)
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else math.nan


def read_models(folders: Sequence[Path]) -> list[Model]:
    """The models of the sweeps and runs, in the order of the folders.

    Raises:
        UserError: no folder is given, or one is neither a run nor a sweep.
    """
    return [Model(name, run, read_config(run), _scores(run)) for name, run in open_folders(folders).items()]


def best_model(models: Sequence[Model]) -> Model | None:
    """The best model by macro F1 on the validation images; nothing is chosen by the test images."""
    return max((model for model in models if model.scores), key=lambda model: rank(model.scores), default=None)


def best_run(folder: Path) -> Run:
    """The run in the folder, or the best one of the sweep.

    Raises:
        UserError: the folder is neither a run nor a sweep, or no run of the sweep has scores on validation images.
    """
    if Run(folder).kind:
        return open_run(folder)
    best = best_model(read_models([folder]))
    if best is None:
        raise UserError(f"{folder}: no run of the sweep has scores yet; wait until one has finished an epoch")
    return best.run


def _scores(run: Run) -> Mapping[str, float]:
    if epochs := read_epochs(run):
        if "test_dice" in epochs[0]:
            raise UserError(f"{run.folder}: is a run that segments; draw it with figures dice or learning-curves")
        return best_epoch(epochs)
    if all(run.predictions(split).exists() for split in SPLITS):
        return {name: value for split in SPLITS for name, value in _scores_of_predictions(run, split).items()}
    return {}


def _scores_of_predictions(run: Run, split: str) -> dict[str, float]:
    predictions = read_predictions(run, split)
    found = measures(predictions.logits, predictions.labels)
    return {
        f"{split}_f1_macro": float(found.f1_macro[0]),
        f"{split}_f1_weighted": float(found.f1_weighted[0]),
        f"{split}_loss": float(found.log_loss[0]),
    }
