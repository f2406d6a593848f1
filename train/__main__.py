"""The command line: python -m train simplecnn|unet|baseline|evaluate|predict|export."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcnn import cli
from jaxcnn.cli import UserError
from jaxcnn.cpu import keep_freed_memory
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import Partition, describe, partition
from jaxcnn.run_lock import lock_run
from jaxcnn.runs import Run, create_run, read_config, read_data, read_environment, remove_leftovers
from train.baselines.command import baseline
from train.config import MODEL_NAMES, SimpleCNNConfig, TrainConfig, UNetConfig, as_json
from train.distributed import by_first, processes
from train.environment import describe_environment, differences
from train.evaluate import evaluate
from train.export import export
from train.interruption import InterruptedRunError
from train.loop import NonFiniteLossError, train
from train.models import check_encoder
from train.parallel import Parallel, choose_devices
from train.placement import Placement
from train.predict import predict
from train.progress import say, score_table
from train.trainer import build_trainer


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
    return _run(config, placement, run_dir, overwrite=overwrite, resume=resume)


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
    return _run(config, placement, run_dir, overwrite=overwrite, resume=resume)


def _run(config: TrainConfig, placement: Placement, run_dir: Path | None, *, overwrite: bool, resume: bool) -> int:
    if overwrite and resume:
        raise UserError("--overwrite and --resume: the one discards what the other goes on with; give one of them")
    check_encoder(config)
    with processes(placement), contextlib.ExitStack() as held:
        parallel = choose_devices(placement, config.batch_size, config.accumulate)
        dataset = load_dataset(config.data, config.max_images)
        parts = _partition(dataset, config)
        run = Run(run_dir or _new_folder(config))

        def prepare() -> None:
            held.enter_context(lock_run(run))
            _open_or_create(run, config, describe(dataset, parts), overwrite=overwrite, resume=resume)

        by_first(prepare)
        say(f"run        {run.folder}")
        say(f"device     {parallel.mesh.size} x {jax.devices()[0].device_kind}{_processes()}")
        counts = ", ".join(f"{len(split)} {name}" for name, split in parts.splits.items())
        say(f"data       {dataset.source}: {counts}")
        if parts.leakage.groups:
            say(f"copies     {_leakage_line(parts)}")
        return _train(config, dataset, parts, run, parallel)


def _new_folder(config: TrainConfig) -> Path:
    if jax.process_count() > 1:
        raise UserError("--run-dir: several processes need one that all of them know; give it")
    return Path("runs") / time.strftime(f"{MODEL_NAMES[type(config)]}-%Y%m%d-%H%M%S")


def _processes() -> str:
    return f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""


def _train(config: TrainConfig, dataset: Dataset, parts: Partition, run: Run, parallel: Parallel) -> int:
    try:
        results = train(*build_trainer(config, parts.splits, dataset.classes, run, parallel))
    except NonFiniteLossError as error:
        way_out = f"{run.checkpoints} keeps the last good state; try a lower --learning-rate"
        print(f"error: {error}; {way_out}", file=sys.stderr)
        return 1
    except InterruptedRunError as error:
        way_out = f"the same command with --resume goes on with {run.folder}"
        print(f"stopped by {error}, and saved; {way_out}", file=sys.stderr)
        return error.exit_code
    say(f"\nThe best checkpoint by validation F1, protocol {config.protocol}:\n\n{score_table(results)}")
    return 0


def _partition(dataset: Dataset, config: TrainConfig) -> Partition:
    try:
        parts = partition(dataset, config.protocol, config.validation_fraction, seed=config.split_seed)
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


def _open_or_create(run: Run, config: TrainConfig, data: Mapping[str, Any], *, overwrite: bool, resume: bool) -> None:
    """A new run folder, or with `resume` the one that is there, whose configuration and images must be the same."""
    if not (resume and run.config.is_file()):
        create_run(run.folder, as_json(config), data, describe_environment(), overwrite=overwrite)
        return
    before, now = read_config(run), as_json(config)
    for field in before.keys() | now.keys():
        if before.get(field) != now.get(field):
            option = f"--{field.replace('_', '-')}"
            raise UserError(
                f"{option} {now.get(field)}: the run in {run.folder} has {before.get(field)}; "
                "resume with the options it was started with"
            )
    _check_images(run, config, data)
    remove_leftovers(run)
    if changed := differences(read_environment(run), describe_environment()):
        say(f"note       {changed}: the results are the same up to rounding, not to the bit")


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
    commands: dict[str, Callable[..., Any]] = {
        "simplecnn": simplecnn,
        "unet": unet,
        "baseline": baseline,
        "evaluate": evaluate,
        "predict": predict,
        "export": export,
    }
    keep_freed_memory()
    cli.run("python -m train", commands, "Train models, evaluate them and use them.")


if __name__ == "__main__":
    main()
