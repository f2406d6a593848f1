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

from jaxcnn.data.dataset import Split
from jaxcnn.errors import UserError
from jaxcnn.evaluation import measures
from jaxcnn.evaluation.counts import Scores
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.folder import Run, check_run_folder, create_run, write_predictions
from jaxcnn.runs.lock import lock_run
from train.baselines.gradient_histograms import gradient_histograms
from train.baselines.nearest_neighbour import nearest_neighbour
from train.config import ImagesConfig
from train.environment import describe_environment
from train.images import load_images, say_images
from train.progress import say, score_table

BaselineName = Literal["nearest-neighbour", "hog"]
_Logits = dict[str, Float32[np.ndarray, "_ classes"]]

_BASELINES: dict[BaselineName, Callable[[Mapping[str, Split], int], _Logits]] = {
    "nearest-neighbour": nearest_neighbour,
    "hog": gradient_histograms,
}


def baseline(
    name: Positional[BaselineName], config: ImagesConfig, *, run_dir: Path | None = None, overwrite: bool = False
) -> None:
    """Score what a network has to beat, as a run that stands beside those of the models.

    Args:
        name: `nearest-neighbour` gives the label of the most similar training image; `hog` is a linear model on
            histograms of oriented gradients.
        config: the options of the baseline.
        run_dir: where the run is kept; runs/NAME-DATE-TIME when not given.
        overwrite: replace the run in the folder.
    """
    run = Run(run_dir or Path("runs") / time.strftime(f"{name}-%Y%m%d-%H%M%S"))
    if run.folder.exists() and not overwrite:
        raise UserError(f"--run-dir {run.folder}: exists; choose another, or replace the run in it with --overwrite")
    check_run_folder(run)
    images = load_images(config)
    say(f"run        {run.folder}")
    say_images(images)
    # The folder is made when all is known, so that a baseline that fails leaves nothing.
    predictions = _predict(name, images.parts.splits, images.dataset.classes)
    content = {"baseline": name, **dataclasses.asdict(config)}
    with lock_run(run):
        create_run(run.folder, content, images.description, _environment(name), overwrite=overwrite)
        for split, of in predictions.items():
            write_predictions(run, split, of)
    results = {split: (len(of.labels), _scores(of)) for split, of in predictions.items()}
    print(f"\nScores, protocol {config.protocol}:\n\n{score_table(results)}")


def _predict(name: BaselineName, splits: Mapping[str, Split], classes: tuple[str, ...]) -> dict[str, Predictions]:
    try:
        logits = _BASELINES[name](splits, len(classes))
    except UserError:
        raise
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
