"""One run, from its options to its scores: the images, the folder, the training, and how it may end."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcnn.cli import UserError
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import Partition, describe, partition
from jaxcnn.program_cache import keep_programs
from jaxcnn.run_lock import lock_run
from jaxcnn.runs import Run, create_run, read_config, read_data, read_environment, remove_leftovers
from train.config import MODEL_NAMES, TrainConfig, as_json
from train.devices.distributed import by_first, processes
from train.devices.parallel import Parallel, choose_devices
from train.devices.placement import Placement
from train.environment import describe_environment, differences
from train.interruption import InterruptedRunError
from train.loop import NonFiniteLossError, train
from train.models import check_encoder, check_image_size
from train.progress import say, score_table
from train.trainer import build_trainer


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set, how it is parted, and what data.json says of that."""

    dataset: Dataset
    parts: Partition
    description: Mapping[str, Any]


def run_model(config: TrainConfig, placement: Placement, run_dir: Path | None, *, overwrite: bool, resume: bool) -> int:
    """Train one model and print its scores; see the commands for the arguments.

    Returns:
        The exit code.

    Raises:
        UserError: the options fit neither one another nor the run in the folder, or something can't be read or written.
    """
    check_intention(overwrite=overwrite, resume=resume)
    check_encoder(config)
    with processes(placement):
        parallel = choose_devices(placement, config.batch_size, config.accumulate)
        keep_programs()
        images = load_images(config)
        check_images(config, images)
        run = Run(run_dir or _new_folder(config))
        with opened(run, config, images, overwrite=overwrite, resume=resume):
            say_where(parallel.mesh.size, images)
            return _train(config, images, run, parallel)


def check_intention(*, overwrite: bool, resume: bool) -> None:
    """See that not both are asked for.

    Raises:
        UserError: they are.
    """
    if overwrite and resume:
        raise UserError("--overwrite and --resume: the one discards what the other goes on with; give one of them")


def _new_folder(config: TrainConfig) -> Path:
    if jax.process_count() > 1:
        raise UserError("--run-dir: several processes need one that all of them know; give it")
    return Path("runs") / time.strftime(f"{MODEL_NAMES[type(config)]}-%Y%m%d-%H%M%S")


def load_images(config: TrainConfig) -> Images:
    """The images that the configuration names.

    Raises:
        UserError: there are none, or too few of a class to hold any out.
    """
    dataset = load_dataset(config.data, config.max_images)
    try:
        parts = partition(dataset, config.protocol, config.validation_fraction, seed=config.split_seed)
    except ValueError as error:
        raise UserError(f"--validation-fraction {config.validation_fraction}: {error}; use more images") from error
    return Images(dataset, parts, describe(dataset, parts))


def check_images(config: TrainConfig, images: Images) -> None:
    """See that the training images fill a batch and fit the network.

    Raises:
        UserError: they don't.
    """
    check_image_size(config, images.dataset.train.images.shape[1:])
    if (count := len(images.parts.splits["train"])) < config.batch_size:
        raise UserError(f"--batch-size {config.batch_size}: larger than the {count} training images; lower it")


@contextlib.contextmanager
def opened(run: Run, config: TrainConfig, images: Images, *, overwrite: bool, resume: bool) -> Iterator[None]:
    """Hold the run's folder: a new one, or with `resume` the one that is there.

    Raises:
        UserError: the run that is there has another configuration or other images, or is in use, or is to be kept.
    """
    with contextlib.ExitStack() as held:

        def prepare() -> None:
            held.enter_context(lock_run(run))
            if resume and run.config.is_file():
                check_same_run(run, config, images)
                remove_leftovers(run)
                _say_differences(run)
            else:
                create_run(run.folder, as_json(config), images.description, describe_environment(), overwrite=overwrite)

        by_first(prepare)
        say(f"run        {run.folder}")
        yield


def check_same_run(run: Run, config: TrainConfig, images: Images) -> None:
    """See that the run in a folder has this configuration and these images.

    Raises:
        UserError: it has others.
    """
    check_same_options(as_json(config), read_config(run), f"the run in {run.folder}")
    before = read_data(run)["fingerprints"]
    for split, fingerprint in images.description["fingerprints"].items():
        if fingerprint != before[split]:
            raise UserError(
                f"--data {config.data}: the {split} images have the fingerprint {fingerprint[:12]}, those of the run"
                f" in {run.folder} have {before[split][:12]}; resume with the images it was started with"
            )


def check_same_options(now: Mapping[str, Any], before: Mapping[str, Any], started: str) -> None:
    """See that something goes on with the options that it was started with.

    Raises:
        UserError: it has others.
    """
    for field in before.keys() | now.keys():
        if before.get(field) != now.get(field):
            option = f"--{field.replace('_', '-')}"
            raise UserError(
                f"{option} {now.get(field)}: {started} has {before.get(field)}; "
                "resume with the options it was started with"
            )


def _say_differences(run: Run) -> None:
    if changed := differences(read_environment(run), describe_environment()):
        say(f"note       {changed}: the results are the same up to rounding, not to the bit")


def say_where(devices: int, images: Images) -> None:
    """Tell which devices work on which images, and what a reader must know of these."""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    say(f"device     {devices} x {jax.devices()[0].device_kind}{processes}")
    counts = ", ".join(f"{len(split)} {name}" for name, split in images.parts.splits.items())
    say(f"data       {images.dataset.source}: {counts}")
    if images.parts.leakage.groups:
        say(f"copies     {_leakage_line(images.parts)}")


def _leakage_line(parts: Partition) -> str:
    """What a reader must know of a data set with near-duplicates across its split."""
    leakage, tested = parts.leakage, len(parts.splits["test"])
    found = f"{leakage.test} of {tested} test images have near-duplicates among {leakage.train} training images"
    if parts.protocol == "leak-free":
        return f"{found}, which are left out"
    return f"{found}; scores on them show memory (--protocol leak-free leaves those out)"


def _train(config: TrainConfig, images: Images, run: Run, parallel: Parallel) -> int:
    try:
        results = train(*build_trainer(config, images.parts.splits, images.dataset.classes, run, parallel))
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
