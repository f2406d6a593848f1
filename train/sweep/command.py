"""The command line of a sweep."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.run_lock import lock_file
from jaxcnn.runs import Run, read_epochs
from train.config import SimpleCNNConfig, UNetConfig, as_json
from train.distributed import by_first, processes
from train.interruption import InterruptedRunError
from train.loop import NonFiniteLossError, train
from train.models import check_encoder
from train.parallel import choose_devices
from train.placement import Placement
from train.progress import say
from train.run import (
    Images,
    check_batch_size,
    check_intention,
    check_same_run,
    load_images,
    opened,
    say_where,
)
from train.sweep.folder import SweepFolder, check_sweep_folder, create_or_resume, read_diverged, write_diverged
from train.sweep.grid import Model, make_models, parse_grid
from train.sweep.table import Row, format_table, read_row, sort_rows, write_table
from train.trainer import build_trainer

AnyConfig = (
    Annotated[SimpleCNNConfig, tyro.conf.subcommand("simplecnn")] | Annotated[UNetConfig, tyro.conf.subcommand("unet")]
)


def sweep(
    config: AnyConfig,
    placement: Placement,
    *,
    sweep_dir: Path,
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    random: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> int:
    """Train models that differ in some options, and compare them on the validation images.

    Args:
        config: the model; its options are those that the models share.
        placement: where it takes place.
        sweep_dir: where the models' run folders and the table are kept.
        grid: FIELD=V1,V2,... for each option to be swept; every combination is trained.
        random: train only so many combinations, drawn without repetition by --seed.
        overwrite: replace the sweep in the folder.
        resume: go on with the sweep in the folder if there is one, else start it.
    """
    check_intention(overwrite=overwrite, resume=resume)
    values = parse_grid(config, grid)
    models = make_models(config, values, random)
    for one_of_each in {getattr(model.config, "encoder", None): model.config for model in models}.values():
        check_encoder(one_of_each)
    with processes(placement), contextlib.ExitStack() as held:
        parallels = [choose_devices(placement, model.config.batch_size, model.config.accumulate) for model in models]
        images = load_images(config)
        for model in models:
            check_batch_size(model.config, images)
        folder = SweepFolder(sweep_dir)
        asked = {"options": as_json(config), "grid": values, "random": random, "models": [m.name for m in models]}

        def prepare() -> None:
            check_sweep_folder(folder)
            held.enter_context(lock_file(folder.lock, "--sweep-dir"))
            create_or_resume(folder, asked, overwrite=overwrite, resume=resume)

        by_first(prepare)
        say(f"sweep      {folder.folder}: {len(models)} models")
        say_where(parallels[0], images)
        try:
            for model in models:
                _train(model, placement, images, folder)
        except InterruptedRunError as error:
            way_out = f"the same command with --resume goes on with {folder.folder}"
            print(f"stopped by {error}, and saved; {way_out}", file=sys.stderr)
            return error.exit_code
        _conclude(models, folder)
    return 0


def _train(model: Model, placement: Placement, images: Images, folder: SweepFolder) -> None:
    """Train a model as it would be trained alone, unless that has been done."""
    config, run = model.config, folder.run(model.name)
    if model.name in read_diverged(folder):
        return
    if _is_finished(run, config.epochs):
        check_same_run(run, config, images)
        say(f"finished   {run.folder}")
        return
    parallel = choose_devices(placement, config.batch_size, config.accumulate)
    with opened(run, config, images, overwrite=False, resume=True):
        try:
            train(*build_trainer(config, images.parts.splits, images.dataset.classes, run, parallel))
        except NonFiniteLossError as error:
            reason = str(error)
            say(f"diverged   {reason}")
            by_first(lambda: write_diverged(folder, model.name, reason))


def _is_finished(run: Run, epochs: int) -> bool:
    """Whether all epochs are done and the predictions written, of which those for the test images come last."""
    return run.config.is_file() and len(read_epochs(run)) == epochs and run.predictions("test").is_file()


def _conclude(models: tuple[Model, ...], folder: SweepFolder) -> None:
    diverged = read_diverged(folder)
    rows = sort_rows(
        [
            Row(model.name, model.values, diverged=diverged[model.name])
            if model.name in diverged
            else read_row(folder.run(model.name), model.values)
            for model in models
        ]
    )
    by_first(lambda: write_table(folder.table, rows))
    say(f"\nEach model's best checkpoint, the best by validation F1 first ({folder.table}):\n\n{format_table(rows)}")
