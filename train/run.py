"""One run, from its options to its scores, and how it may end."""

import sys
import time
from pathlib import Path

import jax

from jaxcnn.errors import UserError
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.folder import Run
from train.config import MODEL_NAMES, TrainConfig
from train.devices.distributed import processes
from train.devices.parallel import Parallel, choose_devices
from train.devices.placement import Placement
from train.images import Images, load_images, say_images
from train.interruption import InterruptedRunError
from train.loop import NonFiniteLossError, train
from train.models import check_encoder, check_image_size
from train.opening import opened
from train.progress import say, score_table
from train.trainer import build_trainer


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
