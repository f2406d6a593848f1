"""One run, from its options to its scores: the folder, the training, and how it may end."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcnn.errors import UserError
from jaxcnn.program_cache import keep_programs
from jaxcnn.run_lock import lock_run
from jaxcnn.runs import Run, create_run, read_config, read_data, read_environment, remove_leftovers
from train.config import MODEL_NAMES, TrainConfig, as_json, default_options
from train.devices.distributed import by_first, processes
from train.devices.parallel import Parallel, choose_devices
from train.devices.placement import Placement
from train.environment import describe_environment, describe_placement, differences
from train.images import Images, load_images, say_images
from train.interruption import InterruptedRunError
from train.loop import NonFiniteLossError, train
from train.models import check_encoder, check_image_size
from train.progress import say, score_table
from train.trainer import build_trainer

# Options that may change where a run goes on: how often it saves, and where its images lie, which fingerprints tell.
MAY_CHANGE = ("checkpoint_every", "data")


def run_model(config: TrainConfig, placement: Placement, run_dir: Path | None, *, overwrite: bool, resume: bool) -> int:
    """Train one model and print its scores; see the commands for the arguments.

    Returns:
        The exit code.

    Raises:
        UserError: the options fit neither one another nor the run in the folder, or something can't be read or written.
    """
    check_intention(overwrite=overwrite, resume=resume)
    if resume and run_dir is None:
        raise UserError("--resume: of which run is not said; give its folder with --run-dir")
    check_encoder(config)
    with processes(placement):
        parallel = choose_devices(placement, config.batch_size, config.accumulate)
        keep_programs()
        images = load_images(config)
        check_images(config, images)
        run = Run(run_dir or _new_folder(config))
        with opened(run, config, images, placement, overwrite=overwrite, resume=resume):
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


def check_images(config: TrainConfig, images: Images) -> None:
    """See that the training images fill a batch and fit the network.

    Raises:
        UserError: they don't.
    """
    check_image_size(config, images.dataset.train.images.shape[1:])
    if (count := len(images.parts.splits["train"])) < config.batch_size:
        raise UserError(f"--batch-size {config.batch_size}: larger than the {count} training images; lower it")


@contextlib.contextmanager
def opened(
    run: Run, config: TrainConfig, images: Images, placement: Placement, *, overwrite: bool, resume: bool
) -> Iterator[None]:
    """Hold the run's folder: a new one, or with `resume` the one that is there.

    Raises:
        UserError: the run that is there has another configuration or other images, or is in use, or is to be kept.
    """
    with contextlib.ExitStack() as held:
        environment = describe_environment() | describe_placement(placement)

        def prepare() -> None:
            held.enter_context(lock_run(run))
            if resume and run.config.is_file():
                check_same_run(run, config, images)
                remove_leftovers(run)
                if changed := differences(read_environment(run), environment):
                    say(f"note       {changed}: the results may differ, if only by rounding")
            else:
                create_run(run.folder, as_json(config), images.description, environment, overwrite=overwrite)

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
    """See that something goes on with the options that it was started with, but for those of `MAY_CHANGE`.

    Raises:
        UserError: it has others.
    """
    model, other = now["model"], before.get("model", before.get("baseline"))
    if model != other:
        raise UserError(f"{model}: {started} is of {other}; resume with that, or choose another folder")
    # An option that is younger than the run had the value that leaves everything as it was.
    before = default_options(model) | dict(before)
    for field, value in now.items():
        if field not in MAY_CHANGE and before[field] != value:
            raise UserError(
                f"--{field.replace('_', '-')} {value}: {started} has {before[field]}; "
                "resume with the options it was started with"
            )


def say_where(devices: int, images: Images) -> None:
    """Tell which devices work on which images, and what a reader must know of these."""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    say(f"device     {devices} x {jax.devices()[0].device_kind}{processes}")
    say_images(images)


def _train(config: TrainConfig, images: Images, run: Run, parallel: Parallel) -> int:
    try:
        results = train(*build_trainer(config, images.parts.splits, images.dataset.classes, run, parallel))
    except NonFiniteLossError as error:
        way_out = "start again with a lower --learning-rate and --overwrite"
        print(f"error: {error}; {way_out}", file=sys.stderr)
        return 1
    except InterruptedRunError as error:
        way_out = f"the same command with --resume --run-dir {run.folder} goes on"
        print(f"stopped by {error}, and saved; {way_out}", file=sys.stderr)
        return error.exit_code
    say(f"\nThe best checkpoint by validation F1, protocol {config.protocol}:\n\n{score_table(results)}")
    return 0
