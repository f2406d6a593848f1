"""One run, from its options to its scores."""

import sys
from pathlib import Path

import jax

from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.folder import Run
from train.devices import Placement, choose_devices
from train.folder import check_intention, hold_folder, new_folder
from train.images import Images, frame_splits, load_images, report_images
from train.interruption import InterruptedRunError
from train.learner import build_learner, check_learner
from train.loop import train
from train.network import check_encoder
from train.options import Config
from train.processes import processes
from train.program import compile_learner
from train.progress import report, score_table


def run_model(config: Config, placement: Placement, run_dir: Path | None, *, overwrite: bool, resume: bool) -> int:
    """Train one model and print its scores.

    Args:
        config: the options.
        placement: devices and processes.
        run_dir: the run folder; runs/MODEL-DATE-TIME when not given.
        overwrite: replace the run in the folder.
        resume: continue the run in the folder if there is one, else start it.

    Returns:
        The exit code: 0, 1 for a run that diverged, 128 + the signal that stopped it.

    Raises:
        UserError: the options don't fit one another or the run in the folder, or a file can't be read or written.
    """
    check_intention(run_dir, overwrite=overwrite, resume=resume)
    check_encoder(config)
    with processes(placement):
        devices = choose_devices(placement, config.training.batch_size, config.training.accumulate)
        keep_programs()
        images = load_images(config.training)
        check_learner(config, images.dataset)
        run = Run(run_dir or new_folder(config.model))
        with hold_folder(run, config, images, placement, overwrite=overwrite, resume=resume):
            report_start(devices.mesh.size, images, config)
            framed = frame_splits(config.training, images.dataset)
            program = compile_learner(build_learner(config, images.dataset, framed, run), devices)
            divergences: list[str] = []
            try:
                results = train(program, lambda _, reason: divergences.append(reason))
            except InterruptedRunError as error:
                way_out = f"the same command with --resume --run-dir {run.folder} continues it"
                print(f"stopped by {error}; the run is saved, and {way_out}", file=sys.stderr)
                return error.exit_code
            if divergences:
                way_out = "start again with a lower --learning-rate and --overwrite"
                print(f"error: {divergences[0]}; {way_out}", file=sys.stderr)
                return 1
            title = f"The best checkpoint by validation F1, protocol {config.training.protocol}:"
            report(f"\n{title}\n\n{score_table(results[0])}")
            return 0


def report_start(devices: int, images: Images, config: Config) -> None:
    """Print the devices and the images."""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    report(f"device     {devices} x {jax.devices()[0].device_kind}{processes}")
    report_images(images, config.training.protocol)
