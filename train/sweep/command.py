"""The command line of a sweep."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.lock import lock_file
from train.config import SimpleCNNConfig, UNetConfig, as_json
from train.devices.distributed import by_first, processes
from train.devices.parallel import pick_devices
from train.devices.placement import Placement
from train.images import load_images
from train.interruption import InterruptedRunError
from train.models import check_encoder
from train.progress import say
from train.run import check_images, check_intention, say_where
from train.sweep.folder import SweepFolder, check_sweep_folder, create_or_resume, read_diverged
from train.sweep.grid import Model, make_models, parse_grid
from train.sweep.seeds import format_settings, over_seeds, write_settings
from train.sweep.table import Row, format_table, read_row, sort_rows, write_table
from train.sweep.training import AtOnce, check_devices, group, train_group

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
    at_once: AtOnce = "auto",
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
        at_once: train so many models as one program, of those that differ in learning rates, weight decay, dropout and
            seed alone; `auto` is all of them on an accelerator, where the memory must hold them, and 1 on a CPU.
        overwrite: replace the sweep in the folder.
        resume: go on with the sweep in the folder if there is one, else start it.
    """
    check_intention(overwrite=overwrite, resume=resume)
    values = parse_grid(config, grid)
    models = make_models(config, values, random)
    for one_of_each in {getattr(model.config, "encoder", None): model.config for model in models}.values():
        check_encoder(one_of_each)
    with processes(placement), contextlib.ExitStack() as held:
        groups = group(models, placement, at_once)
        check_devices(groups, placement)
        keep_programs()
        images = load_images(config)
        for model in models:
            check_images(model.config, images)
        folder = SweepFolder(sweep_dir)
        asked = {"options": as_json(config), "grid": values, "random": random, "models": [m.name for m in models]}

        def prepare() -> None:
            check_sweep_folder(folder)
            held.enter_context(lock_file(folder.lock, "--sweep-dir"))
            create_or_resume(folder, asked, overwrite=overwrite, resume=resume)

        by_first(prepare)
        say(f"sweep      {folder.folder}: {len(models)} models")
        say_where(len(pick_devices(placement)), images)
        try:
            for together in groups:
                train_group(together, placement, images, folder)
        except InterruptedRunError as error:
            way_out = f"the same command with --resume goes on with {folder.folder}"
            print(f"stopped by {error}, and saved; {way_out}", file=sys.stderr)
            return error.exit_code
        _conclude(models, folder)
    return 0


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
    if len({row.values.get("seed") for row in rows if row.splits}) > 1:
        settings = over_seeds(rows)
        by_first(lambda: write_settings(folder.seeds, settings))
        say(f"\nMean of the seeds, and 95% interval ({folder.seeds}):\n\n{format_settings(settings)}")
