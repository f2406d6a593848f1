"""The command line: python -m train simplecnn|unet|sweep|baseline|evaluate|predict|export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcnn import cli
from jaxcnn.cpu import keep_freed_memory
from jaxcnn.evaluation.evaluate import evaluate
from jaxcnn.inference.export import export
from jaxcnn.inference.predict import predict
from train.baselines.command import baseline
from train.config import SimpleCNNConfig, UNetConfig
from train.devices.placement import Placement
from train.run import run_model
from train.sweep.command import sweep


def simplecnn(
    config: SimpleCNNConfig,
    placement: Placement,
    *,
    run_dir: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> int:
    """Train a SimpleCNN.

    Args:
        config: the options of the run.
        placement: where it takes place.
        run_dir: where the run is kept; runs/simplecnn-DATE-TIME when not given.
        overwrite: replace the run in the folder.
        resume: go on with the run in the folder if there is one, else start it.
    """
    return run_model(config, placement, run_dir, overwrite=overwrite, resume=resume)


def unet(
    config: UNetConfig,
    placement: Placement,
    *,
    run_dir: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> int:
    """Train a classifier on the bottleneck of a U-Net that has learnt to segment.

    Args:
        config: the options of the run.
        placement: where it takes place.
        run_dir: where the run is kept; runs/unet-DATE-TIME when not given.
        overwrite: replace the run in the folder.
        resume: go on with the run in the folder if there is one, else start it.
    """
    return run_model(config, placement, run_dir, overwrite=overwrite, resume=resume)


def main() -> None:
    """Entry point of jaxcnn-train."""
    commands: dict[str, Callable[..., Any]] = {
        "simplecnn": simplecnn,
        "unet": unet,
        "sweep": sweep,
        "baseline": baseline,
        "evaluate": evaluate,
        "predict": predict,
        "export": export,
    }
    keep_freed_memory()
    cli.run("python -m train", commands, "Train models, evaluate them and use them.")


if __name__ == "__main__":
    main()
