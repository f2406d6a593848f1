"""Train one model, from its options to its scores."""

import sys
from pathlib import Path

import jax

from jaxcnn.evaluation.tasks import TASKS, score_table
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.folder import Run
from train.feed import lie_on_device
from train.folder import check_intention, hold_folder, new_folder
from train.images import Images, frame_splits, load_images, report_images
from train.learner import build_learner, check_learner
from train.loop import train
from train.machine.devices import Placement, choose_devices
from train.machine.interruption import DivergedRunError, InterruptedRunError, UnfinishedRunError
from train.machine.processes import processes
from train.machine.progress import report
from train.network import check_encoder
from train.options import Config
from train.program import compile_learner
from train.start import check_weights_stay


def train_model(
    config: Config,
    run_dir: Path | str | None = None,
    placement: Placement = Placement(),  # noqa: B008  (frozen)
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """Train one model and print its scores.

    Args:
        config: what `make_config` gives.
        run_dir: the run folder; runs/MODEL-DATE-TIME when not given.
        overwrite: replace the run in the folder.
        resume: continue the run in the folder if there is one, else start it.

    Returns:
        The run, whose folder holds the classifier, the metrics and the predictions.

    Raises:
        UserError: the options don't fit one another or the run in the folder, or a file can't be read or written.
        UnfinishedRunError: the loss is infinite or NaN, or a signal asked for an end.
    """
    check_intention(run_dir, overwrite=overwrite, resume=resume)
    if overwrite:
        check_weights_stay(config, run_dir)
    check_encoder(config)
    with processes(placement):
        devices = choose_devices(placement, config.training.batch_size, config.training.accumulate)
        keep_programs()
        images = load_images(config.training, masks=config.architecture.task == "segmentation")
        check_learner(config, images.dataset)
        run = Run(Path(run_dir) if run_dir else new_folder(config.model))
        with hold_folder(run, config, images, placement, overwrite=overwrite, resume=resume):
            report_start(devices.mesh.size, images, config)
            framed = frame_splits(config.training, images.dataset)
            learner = build_learner(config, images.dataset, framed, run)
            program = compile_learner(
                learner, devices, on_device=lie_on_device([learner], placement, devices.mesh.size)
            )
            try:
                results = train(program, _stop)
            except UnfinishedRunError as error:
                error.folder = run.folder
                raise
        task = TASKS[config.architecture.task]
        title = f"The best checkpoint by validation {task.sorts_by}, protocol {config.training.protocol}:"
        report(f"\n{title}\n\n{score_table(results[0], task)}")
        return run


def _stop(_: int, reason: str) -> None:
    raise DivergedRunError(reason)


def run_model(config: Config, placement: Placement, run_dir: Path | None, *, overwrite: bool, resume: bool) -> int:
    """Run `train_model` as a command, and report how it ended in one line and by the exit code.

    Returns:
        0, 1 for a run that diverged, or 128 + the signal that stopped it.
    """
    try:
        train_model(config, run_dir, placement, overwrite=overwrite, resume=resume)
    except DivergedRunError as error:
        print(f"error: {error}; start again with a lower --learning-rate and --overwrite", file=sys.stderr)
        return 1
    except InterruptedRunError as error:
        way_out = f"continue it with the same command and --resume --run-dir {error.folder}"
        print(f"stopped by {error}; the run is saved; {way_out}", file=sys.stderr)
        return error.exit_code
    return 0


def report_start(devices: int, images: Images, config: Config) -> None:
    """Print the devices and the images."""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    report(f"device     {devices} x {jax.devices()[0].device_kind}{processes}")
    report_images(images, config.training.protocol)
