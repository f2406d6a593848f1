"""Start from what another run has learnt: its best checkpoint's weights, and its optimizer's moments if asked for."""

from pathlib import Path
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict

from jaxcnn.errors import UserError
from jaxcnn.inference.trained import load_best, read_description
from jaxcnn.models.architecture import RANDOM
from jaxcnn.models.table import model_fields
from jaxcnn.runs.checkpoints import read_part
from jaxcnn.runs.folder import Run, open_run
from train.options import Config, TrainOptions

# Of the same weights another part may learn, and their dropout may differ.
_MAY_DIFFER = ("classes", "dropout", "frozen_stages")


def start_weights(training: TrainOptions, model: nn.Module) -> dict[tuple[str, ...], Any]:
    """The weights and batch statistics to start from by their paths in the model; none where it starts from random.

    Raises:
        UserError: there are none, or they are another network's.
    """
    if training.start_from is None:
        return {}
    trained = load_best(open_run(Path(training.start_from)))
    before, now = ({"model": type(each).__name__} | model_fields(each) for each in (trained.model, model))
    for field, value in now.items():
        if field not in _MAY_DIFFER and before.get(field) != value:
            raise UserError(
                f"--start-from {training.start_from}: its network has {field} {before.get(field)}, this one {value};"
                " give the options that it was trained with"
            )
    return flatten_dict(trained.variables)


def check_start(training: TrainOptions, classes: tuple[str, ...]) -> None:
    """Raise a UserError if there is a run to start from, and it knows other classes."""
    if training.start_from is None:
        return
    known = tuple(read_description(open_run(Path(training.start_from)).best)["classes"])
    if known != classes:
        raise UserError(
            f"--start-from {training.start_from}: it knows the classes {', '.join(known)}, the data set has"
            f" {', '.join(classes)}; choose a run of these classes"
        )


def check_weights_stay(config: Config, folder: Path | str | None) -> None:
    """Raise a UserError if the weights to start from are in the folder that is to be replaced."""
    for option, path in {"--start-from": config.training.start_from, "--encoder": config.encoder}.items():
        if folder and path not in (None, RANDOM) and Path(path).resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(f"{option} {path}: would be replaced by --overwrite; choose another folder")


def start_moments(training: TrainOptions, optimizer_state: Any) -> Any:
    """Adam's moments and count of steps in the last checkpoint of the run to start from.

    They are the first part of the optimizer's state, whose shapes are given.

    Raises:
        UserError: there are none, or they belong to other weights.
    """
    folder = Run(Path(str(training.start_from))).checkpoints
    try:
        return read_part(folder, "opt_state", optimizer_state)[0]
    except ValueError as error:
        raise UserError(f"--start-optimizer: {error}; leave it out to start with a new optimizer") from error
