"""The command line of the baselines: each writes a run folder like a model, without epochs and checkpoints."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32
from tyro.conf import Positional

from jaxcnn.data.dataset import Split
from jaxcnn.errors import UserError
from jaxcnn.evaluation import measures
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.evaluation.tasks import TASKS, score_table
from jaxcnn.runs.folder import Run, check_run_folder, create_run, write_predictions
from jaxcnn.runs.lock import lock_run
from train.baselines.gradient_histograms import gradient_histograms
from train.baselines.nearest_neighbour import nearest_neighbour
from train.folder import describe_environment, new_folder
from train.images import load_images, report_images
from train.machine.progress import report
from train.options import ImageOptions

BaselineName = Literal["nearest-neighbour", "hog"]
_Logits = dict[str, Float32[np.ndarray, "_ classes"]]

_BASELINES: dict[BaselineName, Callable[[Mapping[str, Split], int], _Logits]] = {
    "nearest-neighbour": nearest_neighbour,
    "hog": gradient_histograms,
}


def baseline(
    name: Positional[BaselineName], config: ImageOptions, *, run_dir: Path | None = None, overwrite: bool = False
) -> None:
    """Train and score a baseline that a network has to beat, and save it as a run.

    Args:
        name: Baseline: `nearest-neighbour` predicts the label of the most similar training image; `hog` is a linear
            model on histograms of oriented gradients.
        config: Options of the baseline.
        run_dir: Folder of the run; runs/NAME-DATE-TIME when not given.
        overwrite: Replace the run in the folder.
    """
    if run_dir is not None:
        if run_dir.exists() and not overwrite:
            raise UserError(f"--run-dir {run_dir}: exists; choose another, or replace the run in it with --overwrite")
        check_run_folder(Run(run_dir))
    images = load_images(config)
    report_images(images, config.protocol)
    # The folder is made when all is known, so that a baseline that fails leaves nothing.
    predictions = _predict(name, images.dataset.splits, images.dataset.classes)
    run = Run(run_dir or new_folder(name))
    report(f"run        {run.folder}")
    content = {"baseline": name, **dataclasses.asdict(config)}
    with lock_run(run):
        environment = describe_environment(("scikit-learn", "scikit-image") if name == "hog" else ())
        create_run(run.folder, content, images.description, environment, overwrite=overwrite)
        for split, predicted in predictions.items():
            write_predictions(run, split, predicted)
    results = {split: (len(predicted.labels), _scores(predicted)) for split, predicted in predictions.items()}
    print(f"\nScores, protocol {config.protocol}:\n\n{score_table(results, TASKS['classification'])}")


def _predict(name: BaselineName, splits: Mapping[str, Split], classes: tuple[str, ...]) -> dict[str, Predictions]:
    try:
        logits = _BASELINES[name](splits, len(classes))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{name}: {error}; give other --data") from error
    return {
        role: Predictions(logits[role], split.labels, split.groups, split.names, classes)
        for role, split in splits.items()
    }


def _scores(predictions: Predictions) -> dict[str, float]:
    found = measures(predictions.logits, predictions.labels)
    return {"loss": float(found.log_loss[0])} | {
        name: float(getattr(found, name)[0]) for name in ("accuracy", "f1_macro", "f1_weighted")
    }
