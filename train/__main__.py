"""The command line: python -m train simplecnn."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcnn import cli
from jaxcnn.cli import UserError
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import Partition, describe, partition
from jaxcnn.runs import Run, create_run, open_run, read_config, read_data
from train.config import SimpleCNNConfig, TrainConfig, as_json, build_model
from train.environment import describe_environment
from train.loop import NonFiniteLossError, train
from train.progress import say, score_table


def simplecnn(
    config: SimpleCNNConfig, *, run_dir: Path | None = None, overwrite: bool = False, resume: bool = False
) -> int:
    """Train a SimpleCNN.

    Args:
        config: the options of the run.
        run_dir: where the run is kept; runs/simplecnn-DATE-TIME when not given.
        overwrite: replace the run in the folder.
        resume: go on with the run in the folder if there is one, else start it.
    """
    if overwrite and resume:
        raise UserError("--overwrite and --resume: the one discards what the other goes on with; give one of them")
    dataset = load_dataset(config.data, config.max_images)
    parts = _partition(dataset, config)
    folder = run_dir or Path("runs") / time.strftime("simplecnn-%Y%m%d-%H%M%S")
    run = _open_or_create(folder, config, describe(dataset, parts), overwrite=overwrite, resume=resume)
    say(f"run        {folder}")
    say(f"device     {jax.device_count()} x {jax.devices()[0].device_kind}")
    say(f"data       {dataset.source}: " + ", ".join(f"{len(split)} {name}" for name, split in parts.splits.items()))
    if parts.leakage.groups:
        say(f"copies     {_leakage_line(parts)}")
    try:
        results = train(config, build_model(config, len(dataset.classes)), parts.splits, dataset.classes, run)
    except NonFiniteLossError as error:
        way_out = f"{run.checkpoints} keeps the last good state; try a lower --learning-rate"
        print(f"error: {error}; {way_out}", file=sys.stderr)
        return 1
    print(f"\nThe best checkpoint by validation F1, protocol {config.protocol}:\n\n{score_table(results)}")
    return 0


def _partition(dataset: Dataset, config: TrainConfig) -> Partition:
    try:
        parts = partition(dataset, config.protocol, config.validation_fraction, seed=config.seed)
    except ValueError as error:
        raise UserError(f"--validation-fraction {config.validation_fraction}: {error}; use more images") from error
    if (images := len(parts.splits["train"])) < config.batch_size:
        raise UserError(f"--batch-size {config.batch_size}: larger than the {images} training images; lower it")
    return parts


def _leakage_line(parts: Partition) -> str:
    """What a reader must know of a data set with near-duplicates across its split."""
    leakage, tested = parts.leakage, len(parts.splits["test"])
    found = f"{leakage.test} of {tested} test images have near-duplicates among {leakage.train} training images"
    if parts.protocol == "leak-free":
        return f"{found}, which are left out"
    return f"{found}; scores on them show memory (--protocol leak-free leaves those out)"


def _open_or_create(
    folder: Path, config: TrainConfig, data: Mapping[str, Any], *, overwrite: bool, resume: bool
) -> Run:
    """A new run folder, or with `resume` the one that is there, whose configuration and images must be the same."""
    if not (resume and folder.exists()):
        return create_run(folder, as_json(config), data, describe_environment(), overwrite=overwrite)
    run = open_run(folder)
    before, now = read_config(run), as_json(config)
    for field in before.keys() | now.keys():
        if before.get(field) != now.get(field):
            option = f"--{field.replace('_', '-')}"
            raise UserError(
                f"{option} {now.get(field)}: the run in {folder} has {before.get(field)}; "
                "resume with the options it was started with"
            )
    _check_images(run, config, data)
    return run


def _check_images(run: Run, config: TrainConfig, data: Mapping[str, Any]) -> None:
    before = read_data(run)["fingerprints"]
    for split, fingerprint in data["fingerprints"].items():
        if fingerprint != before[split]:
            raise UserError(
                f"--data {config.data}: the {split} images have the fingerprint {fingerprint[:12]}, those of the run"
                f" in {run.folder} have {before[split][:12]}; resume with the images it was started with"
            )


def main() -> None:
    """Entry point of jaxcnn-train."""
    cli.run("python -m train", {"simplecnn": simplecnn}, "Train the models.")


if __name__ == "__main__":
    main()
