"""The command line: python -m train MODEL, or one of the commands that are listed below."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcnn import cli
from jaxcnn.cpu import keep_freed_memory
from jaxcnn.evaluation.evaluate import evaluate
from jaxcnn.evaluation.label_check import check_labels
from jaxcnn.inference.card import card
from jaxcnn.inference.export import export
from jaxcnn.inference.hub import push
from jaxcnn.inference.predict import predict
from jaxcnn.inference.segment import segment
from jaxcnn.inference.serve import serve
from jaxcnn.models.table import MODELS
from train.ahead.command import compile_command
from train.baselines.command import baseline
from train.features import clear_features
from train.machine.devices import Placement
from train.options import Config, config_class
from train.run import run_model
from train.sweep.command import sweep_command


def training_command(model: str) -> Callable[..., int]:
    """The command that trains a model of the table; its signature and docstring become the command line."""

    def command(
        config: Config,
        placement: Placement,
        *,
        run_dir: Path | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> int:
        return run_model(config, placement, run_dir, overwrite=overwrite, resume=resume)

    command.__annotations__["config"] = config_class(model)
    command.__doc__ = f"""{MODELS[model].summary}

    Args:
        config: Options of the run.
        placement: Devices and processes.
        run_dir: Folder of the run; runs/{model}-DATE-TIME when not given.
        overwrite: Replace the run in the folder.
        resume: Continue the run in the folder if there is one, else start it.
    """
    return command


def main(program: str = "python -m train") -> None:
    """Run the command that the arguments name."""
    keep_freed_memory()
    # `--crop` was a switch before there was a choice of crops.
    for place in [place for place, word in enumerate(sys.argv) if word == "--crop"][::-1]:
        if sys.argv[place + 1 : place + 2] in ([], ["--"]) or sys.argv[place + 1].startswith("--"):
            sys.argv.insert(place + 1, "head")
    commands: dict[str, Callable[..., Any]] = {
        **{model: training_command(model) for model in MODELS},
        "sweep": sweep_command(),
        "compile": compile_command(),
        "baseline": baseline,
        "evaluate": evaluate,
        "check-labels": check_labels,
        "predict": predict,
        "segment": segment,
        "export": export,
        "card": card,
        "push": push,
        "serve": serve,
        "clear-features": clear_features,
    }
    cli.run(program, commands, "Train models, evaluate them and use them.")


if __name__ == "__main__":
    main()
