"""The command line of the baselines: each leaves a run folder as a model does, without epochs and checkpoints."""

import dataclasses
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from tyro.conf import Positional

from jaxcnn.cli import UserError
from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import Partition, Protocol, describe, partition
from jaxcnn.evaluation import measures
from jaxcnn.metrics import Scores
from jaxcnn.runs import Predictions, create_run, write_predictions
from train.baselines.gradient_histograms import gradient_histograms
from train.baselines.nearest_neighbour import nearest_neighbour
from train.environment import describe_environment
from train.progress import say, score_table

BaselineName = Literal["nearest-neighbour", "hog"]
_Logits = dict[str, Float32[np.ndarray, "_ classes"]]

_BASELINES: dict[BaselineName, Callable[[Mapping[str, Split], int], _Logits]] = {
    "nearest-neighbour": nearest_neighbour,
    "hog": gradient_histograms,
}


@dataclasses.dataclass(frozen=True)
class BaselineConfig:
    """Options of a baseline, which mean what they mean for a model."""

    data: str = "phantom"
    """`phantom` (made in memory), or a folder made by `python -m jaxcnn.data prepare`."""
    max_images: int | None = None
    """Use at most this many images of each split, spread evenly over it: for a quick look."""
    protocol: Protocol = "leak-free"
    """`leak-free` leaves out near-duplicates of test images; `official` keeps them, as published scores do."""
    validation_fraction: float = 0.1
    """Share of the training images held out, class by class and with all their copies."""
    split_seed: int = 0
    """Of the choice of the held-out images."""

    def __post_init__(self) -> None:
        """Refuse what no images can be chosen by.

        Raises:
            ValueError: the message names the option and the values it takes.
        """
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"--max-images {self.max_images}: must be at least 1")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"--validation-fraction {self.validation_fraction}: must be above 0 and below 1")
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"--split-seed {self.split_seed}: must be at least 0 and below 2**32")


def baseline(
    name: Positional[BaselineName], config: BaselineConfig, *, run_dir: Path | None = None, overwrite: bool = False
) -> None:
    """Score what a network has to beat, as a run that stands beside those of the models.

    Args:
        name: `nearest-neighbour` gives the label of the most similar training image; `hog` is a linear model on
            histograms of oriented gradients.
        config: the options of the baseline.
        run_dir: where the run is kept; runs/NAME-DATE-TIME when not given.
        overwrite: replace the run in the folder.
    """
    folder = run_dir or Path("runs") / time.strftime(f"{name}-%Y%m%d-%H%M%S")
    if folder.exists() and not overwrite:
        raise UserError(f"--run-dir {folder}: exists; choose another, or replace the run in it with --overwrite")
    dataset = load_dataset(config.data, config.max_images)
    parts = _partition(dataset, config)
    say(f"run        {folder}")
    say(f"data       {dataset.source}: " + ", ".join(f"{len(split)} {of}" for of, split in parts.splits.items()))
    # The folder is made last, so that it is never without predictions.
    predictions = _predict(name, parts.splits, dataset.classes)
    content = {"baseline": name, **dataclasses.asdict(config)}
    run = create_run(folder, content, describe(dataset, parts), _environment(name), overwrite=overwrite)
    for split, of in predictions.items():
        write_predictions(run, split, of)
    results = {split: (len(of.labels), _scores(of)) for split, of in predictions.items()}
    print(f"\nScores, protocol {config.protocol}:\n\n{score_table(results)}")


def _partition(dataset: Dataset, config: BaselineConfig) -> Partition:
    try:
        return partition(dataset, config.protocol, config.validation_fraction, seed=config.split_seed)
    except ValueError as error:
        raise UserError(f"--validation-fraction {config.validation_fraction}: {error}; use more images") from error


def _predict(name: BaselineName, splits: Mapping[str, Split], classes: tuple[str, ...]) -> dict[str, Predictions]:
    try:
        logits = _BASELINES[name](splits, len(classes))
    except ValueError as error:
        raise UserError(f"{name}: {error}; give other --data") from error
    return {
        of: Predictions(logits[of], split.labels, split.duplicates, split.names, classes)
        for of, split in splits.items()
    }


def _environment(name: BaselineName) -> dict[str, Any]:
    """As for a model, with the versions of what did the work."""
    environment = describe_environment()
    extra = ("scikit-learn", "scikit-image") if name == "hog" else ()
    return environment | {
        "packages": environment["packages"] | {package: importlib.metadata.version(package) for package in extra}
    }


def _scores(predictions: Predictions) -> Scores:
    found = measures(predictions.logits, predictions.labels)
    return Scores(*(float(values[0]) for values in (found.log_loss, found.accuracy, found.f1_macro, found.f1_weighted)))
