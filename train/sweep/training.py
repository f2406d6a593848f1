"""The models of a sweep, trained one after the other or many at once; what is done is not done again."""

import contextlib
from collections.abc import Sequence
from typing import Literal

import jax

from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, read_epochs
from train.devices.distributed import by_first
from train.devices.parallel import choose_devices, pick_devices
from train.devices.placement import Placement
from train.framing import frame_splits
from train.images import Images
from train.loop import NonFiniteLossError, train
from train.opening import check_same_run, opened
from train.progress import say
from train.setup import prepare
from train.sweep.folder import SweepFolder, read_diverged, write_diverged
from train.sweep.grid import Model
from train.sweep.population import build_population, can_join
from train.sweep.together import train_together
from train.trainer import build_trainer

AtOnce = int | Literal["auto"]


def group(models: Sequence[Model], placement: Placement, at_once: AtOnce) -> list[tuple[Model, ...]]:
    """The models that are trained together: those that one program can train, at most so many.

    Raises:
        UserError: so many can't be trained at once here.
    """
    largest = _largest_group(len(models), placement, at_once)
    groups: list[tuple[Model, ...]] = []
    for model in models:
        for place, others in enumerate(groups):
            if len(others) < largest and can_join(others[0].config, model.config):
                groups[place] = (*others, model)
                break
        else:
            groups.append((model,))
    return groups


def _largest_group(models: int, placement: Placement, at_once: AtOnce) -> int:
    cannot = (
        "several processes" if jax.process_count() > 1 else "--parallel pmap" if placement.parallel == "pmap" else ""
    )
    if at_once == "auto":
        # A CPU is busy with one model, and would need the memory of many; see docs/sweep.md for what was measured.
        return 1 if cannot or jax.default_backend() == "cpu" else models
    if at_once < 1:
        raise UserError(f"--at-once {at_once}: must be auto or at least 1")
    if at_once > 1 and cannot:
        raise UserError(f"--at-once {at_once}: models are not trained together with {cannot}; leave it out")
    return at_once


def check_devices(groups: Sequence[Sequence[Model]], placement: Placement) -> None:
    """See that the devices are there, and can divide the batches of each model that has all of them to itself.

    Raises:
        UserError: they aren't, or can't.
    """
    pick_devices(placement)
    for models in groups:
        if len(models) == 1:
            choose_devices(placement, models[0].config.batch_size, models[0].config.accumulate)


def train_group(models: Sequence[Model], placement: Placement, images: Images, folder: SweepFolder) -> None:
    """Train some models, as far as that has not been done.

    Raises:
        InterruptedRunError, UserError: see `train.loop.train`.
    """
    known = read_diverged(folder)
    for model in models:
        if _is_finished(folder.run(model.name), model.config.epochs):
            check_same_run(folder.run(model.name), model.config, images)
            say(f"finished   {folder.run(model.name).folder}")
            known[model.name] = ""
    left = [place for place, model in enumerate(models) if model.name not in known]
    if len(models) > 1 and left and _stand_together([folder.run(models[place].name) for place in left]):
        _train_together(models, left, placement, images, folder)
    else:
        for place in left:
            _train_alone(models[place], placement, images, folder)


def _is_finished(run: Run, epochs: int) -> bool:
    """Whether all epochs are done and the predictions written, of which those for the test images come last."""
    return run.config.is_file() and len(read_epochs(run)) == epochs and run.predictions("test").is_file()


def _stand_together(runs: Sequence[Run]) -> bool:
    """Whether runs can go on together without losing more than the steps since one checkpoint.

    They can't where they were trained alone in between.
    """
    steps = [{path.name for path in run.checkpoints.glob("*") if path.name.isdecimal()} for run in runs]
    return bool(set.intersection(*steps)) or all(len(of_run) <= 1 for of_run in steps)


def _train_alone(model: Model, placement: Placement, images: Images, folder: SweepFolder) -> None:
    config, run = model.config, folder.run(model.name)
    parallel = choose_devices(placement, config.batch_size, config.accumulate)
    with opened(run, config, images, placement, overwrite=False, resume=True):
        try:
            train(*build_trainer(config, images.parts.splits, images.dataset.classes, run, parallel))
        except NonFiniteLossError as error:
            _note(folder, model, str(error))


def _train_together(
    models: Sequence[Model], left: Sequence[int], placement: Placement, images: Images, folder: SweepFolder
) -> None:
    with contextlib.ExitStack() as held:
        for place in left:
            run = folder.run(models[place].name)
            held.enter_context(opened(run, models[place].config, images, placement, overwrite=False, resume=True))
        splits, setups, states = images.parts.splits, [], []
        framed = frame_splits(models[0].config, splits)
        for model in models:
            run = folder.run(model.name)
            setup, state = prepare(model.config, splits, framed, images.dataset.classes, run)
            setups.append(setup)
            # In the host's memory, so that the devices hold no state twice.
            states.append(jax.device_get(state.compute()))
        population = build_population(setups, states[0], pick_devices(placement))
        train_together(population, states, left, lambda place, reason: _note(folder, models[place], reason))


def _note(folder: SweepFolder, model: Model, reason: str) -> None:
    say(f"diverged   {model.name}: {reason}")
    by_first(lambda: write_diverged(folder, model.name, reason))
