"""The command line of a sweep."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tyro

from jaxcnn.data.load import load_dataset
from jaxcnn.errors import UserError
from jaxcnn.evaluation.patients import (
    PatientScores,
    score_patients,
    summarise_patients,
    summary_table,
    write_patients,
)
from jaxcnn.evaluation.tasks import TASKS
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.folder import read_masks
from train.folder import check_intention
from train.images import Images, divide_images
from train.learner import check_learner
from train.machine.devices import Placement, pick_devices
from train.machine.interruption import InterruptedRunError
from train.machine.processes import by_first, processes
from train.machine.progress import report
from train.network import check_encoder
from train.options import Config, any_config_class
from train.run import report_start
from train.start import check_weights_stay
from train.sweep import table
from train.sweep.folder import SweepFolder, hold_sweep, is_last, read_diverged, share
from train.sweep.grid import Model, make_models, parse_grid
from train.sweep.groups import AtOnce, check_devices, group, train_group


def sweep_command() -> Callable[..., int]:
    """The command, whose first argument is a model of the table."""
    sweep.__annotations__["config"] = any_config_class()
    return sweep


def sweep(
    config: Config,
    placement: Placement,
    *,
    sweep_dir: Path,
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    random: int | None = None,
    at_once: AtOnce = "auto",
    overwrite: bool = False,
    resume: bool = False,
) -> int:
    """Train models that differ in some options, or on several folds, and compare them on the validation images.

    Args:
        config: Options that all models share unless they are in the grid.
        placement: Devices and processes.
        sweep_dir: Folder of the sweep, for the tables and the run folder of each model.
        grid: FIELD=V1,V2,... for each option that differs; every combination is trained.
        random: Number of combinations to train, drawn without repetition by --seed; all if not given.
        at_once: Number of models to train as one program, if they differ only in learning rates, weight decay, dropout
            and seed; `auto` is as many as fit in memory on an accelerator, and 1 on a CPU.
        overwrite: Replace the sweep in the folder.
        resume: Continue the sweep in the folder if there is one, else start it.
    """
    check_intention(sweep_dir, overwrite=overwrite, resume=resume)
    values = parse_grid(config, grid)
    models = make_models(config, values, random)
    for model in models if overwrite else ():
        check_weights_stay(model.config, sweep_dir)
    by_weights = {(model.config.encoder, model.config.training.start_from): model for model in models}
    for model in by_weights.values():
        check_encoder(model.config)
    with processes(placement):
        groups = group(models, placement, at_once)
        check_devices(groups, placement)
        keep_programs()
        images_of = _images_by_fold(config)
        for model in sorted(models, key=_fold):
            check_learner(model.config, images_of(_fold(model)).dataset)
        folder = SweepFolder(sweep_dir)
        asked = {"options": config.to_json(), "grid": values, "random": random, "models": [m.name for m in models]}
        # Fold after fold: the images of one are in memory.
        left = sorted(groups, key=lambda models: _fold(models[0]))
        with hold_sweep(folder, asked, overwrite=overwrite, resume=resume) as lock:
            report(f"sweep      {folder.folder}: {len(models)} models")
            report_start(len(pick_devices(placement)), images_of(_fold(models[0])), config)
            try:
                waited = False
                while left:
                    share(lock)
                    left = [
                        together
                        for together in left
                        if not train_group(together, placement, images_of(_fold(together[0])), folder, at_once)
                    ]
                    if not is_last(folder, lock):
                        report("Other processes train the other models; the last one to end writes the tables.")
                        return 0
                    if left and waited:
                        raise UserError(f"{folder.folder}: a model is trained outside of the sweep; wait until it ends")
                    # What processes had that have ended meanwhile is free.
                    waited = True
            except InterruptedRunError as error:
                way_out = f"continue it with the same command and --resume --sweep-dir {folder.folder}"
                print(f"stopped by {error}; the sweep is saved; {way_out}", file=sys.stderr)
                return error.exit_code
            _conclude(models, folder)
    return 0


def _fold(model: Model) -> int:
    """The fold that the model is tested on; 0 where there is no cross-validation."""
    return model.config.training.fold or 0


def _images_by_fold(config: Config) -> Callable[[int], Images]:
    """What gives the images of a fold, or with 0 those of a sweep without folds; the last ones are kept."""
    loaded = load_dataset(
        config.training.data, config.training.max_images, masks=config.architecture.task == "segmentation"
    )

    @functools.lru_cache(maxsize=1)
    def images_of(fold: int) -> Images:
        return divide_images(loaded, dataclasses.replace(config.training, fold=fold or None))

    return images_of


def _conclude(models: tuple[Model, ...], folder: SweepFolder) -> None:
    diverged, task = read_diverged(folder), models[0].config.architecture.task
    rows = table.sort_rows(
        [
            table.Row(model.name, model.values, diverged=diverged[model.name], task=TASKS[task])
            if model.name in diverged
            else table.read_row(folder.run(model.name), model.values, task)
            for model in models
        ]
    )
    by_first(lambda: table.write_models(folder.table, rows))
    title = f"The best checkpoint of each model, sorted by validation {TASKS[task].sorts_by} ({folder.table}):"
    report(f"\n{title}\n\n{table.format_models(rows)}")
    if task == "segmentation":
        _conclude_patients(rows, folder)
    if any("fold" in row.values for row in rows if row.splits):
        settings = table.average_over_folds(rows)
        by_first(lambda: table.write_settings(folder.folds, settings, "folds"))
        title = f"Mean over the folds, and 95% interval ({folder.folds}):"
        report(f"\n{title}\n\n{table.format_settings(settings, 'folds')}")
    elif len({row.values.get("seed") for row in rows if row.splits}) > 1:
        settings = table.average_over_seeds(rows)
        by_first(lambda: table.write_settings(folder.seeds, settings))
        report(f"\nMean over the seeds, and 95% interval ({folder.seeds}):\n\n{table.format_settings(settings)}")


def _conclude_patients(rows: Sequence[table.Row], folder: SweepFolder) -> None:
    """Score the test patients of all models, which are all patients where these are folds."""
    scored = []
    for row in rows:
        if row.splits:
            masks = read_masks(folder.run(row.name), "test")
            scored.append(({"model": row.name, **row.values}, masks, score_patients(masks)))
    if not scored:
        return
    by_first(lambda: write_patients(folder.patients, scored))
    settings: dict[str, list[PatientScores]] = {}
    for values, _, scores in scored:
        name = " ".join(f"{option}={value}" for option, value in values.items() if option not in ("model", "fold"))
        settings.setdefault(name or "all models", []).append(scores)
    joined = [
        {name: np.concatenate([scores[name] for scores in parts]) for name in parts[0]} for parts in settings.values()
    ]
    title = f"The test patients ({folder.patients}), and 95% intervals from resampled patients:"
    report(f"\n{title}\n\n{summary_table(list(settings), list(map(summarise_patients, joined)))}")
