"""Group the models of a sweep that are trained together, and train those that are not finished."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Literal

import jax

from jaxcnn.data.batch import Examples
from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, read_epochs
from jaxcnn.runs.lock import InUseError, lock_run
from train.feed import lie_on_device
from train.folder import check_same_run, hold_folder, note_changes
from train.images import Images, frame_splits
from train.learner import Learner, build_learner
from train.loop import train
from train.machine.devices import Placement, choose_devices, pick_devices
from train.machine.processes import by_first
from train.machine.progress import report
from train.program import compile_learner
from train.sweep.folder import SweepFolder, read_diverged, write_diverged
from train.sweep.grid import Model
from train.sweep.population import can_join, compile_population, largest_population

AtOnce = int | Literal["auto"]


def group(models: Sequence[Model], placement: Placement, at_once: AtOnce) -> list[tuple[Model, ...]]:
    """Group the models that one program can train, at most a given number at once.

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
        raise UserError(f"--at-once {at_once}: can't be used with {cannot}; leave it out")
    return at_once


def check_devices(groups: Sequence[Sequence[Model]], placement: Placement) -> None:
    """Raise a UserError if devices are missing, or can't divide the batches of a model that has them to itself."""
    pick_devices(placement)
    for models in groups:
        if len(models) == 1:
            training = models[0].config.training
            choose_devices(placement, training.batch_size, training.accumulate)


def train_group(
    models: Sequence[Model], placement: Placement, images: Images, folder: SweepFolder, at_once: AtOnce
) -> bool:
    """Train the models that are not finished, and that no other process trains.

    With `auto` as many of them at once as the devices' memory holds.

    Returns:
        Whether all of them are finished or have diverged.

    Raises:
        InterruptedRunError, UserError: see `train.loop.train`.
    """
    left = []
    for model in models:
        if state := _done(model, images, folder):
            report(f"{state:10} {folder.run(model.name).folder}")
        else:
            left.append(model)
    if not left:
        return True
    framed = frame_splits(models[0].config.training, images.dataset)
    size = len(models)
    if at_once == "auto" and size > 1:
        size = _most_at_once(models, placement, images, framed, folder) or size
    for start in range(0, len(models), size):
        chosen = models[start : start + size]
        unfinished = [model for model in chosen if model in left]
        if unfinished and _stand_together([folder.run(model.name) for model in unfinished]):
            _train(chosen, unfinished, placement, images, framed, folder)
        else:
            for model in unfinished:
                _train([model], [model], placement, images, framed, folder)
    return all(_done(model, images, folder) for model in left)


def _done(model: Model, images: Images, folder: SweepFolder) -> Literal["finished", "diverged", ""]:
    """What a model has come to, as process 0 sees it: another sweep's process may be about to finish it."""
    run = folder.run(model.name)

    def look() -> Literal["finished", "diverged", ""]:
        if _is_finished(run, model.config.training.epochs):
            check_same_run(run, model.config, images)
            with contextlib.suppress(InUseError), lock_run(run):
                note_changes(run, model.config, images)
            return "finished"
        return "diverged" if model.name in read_diverged(folder) else ""

    return by_first(look)


def _is_finished(run: Run, epochs: int) -> bool:
    """Whether all epochs are done and the predictions written, of which those for the test images come last."""
    return run.config.is_file() and len(read_epochs(run)) == epochs and run.predictions("test").is_file()


def _take(held: contextlib.ExitStack, model: Model, placement: Placement, images: Images, folder: SweepFolder) -> bool:
    """Lock the run folder of a model, unless another process trains it or has done so meanwhile."""
    run = folder.run(model.name)
    try:
        held.enter_context(hold_folder(run, model.config, images, placement, overwrite=False, resume=True))
    except InUseError:
        report(f"in use     {run.folder}")
        return False
    return not _done(model, images, folder)


def _stand_together(runs: Sequence[Run]) -> bool:
    """Whether runs can go on together without losing more than the steps since one checkpoint.

    They can't where they were trained alone in between.
    """
    steps = [{path.name for path in run.checkpoints.glob("*") if path.name.isdecimal()} for run in runs]
    return bool(set.intersection(*steps)) or all(len(saved) <= 1 for saved in steps)


def _most_at_once(
    models: Sequence[Model], placement: Placement, images: Images, framed: Mapping[str, Examples], folder: SweepFolder
) -> int | None:
    """How many of the models the devices' memory holds; None where it isn't known."""
    devices = pick_devices(placement)
    learner = _learner(models[0], images, framed, folder)
    # Where an epoch is one program, the images lie beside it.
    every = (learner.training, *learner.examples.values())
    views = {id(view): view.nbytes for examples in every for view in examples.inputs}
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    return largest_population(learner, devices, limit and limit - sum(views.values()), len(models))


def _learner(model: Model, images: Images, framed: Mapping[str, Examples], folder: SweepFolder) -> Learner:
    return build_learner(model.config, images.dataset, framed, folder.run(model.name))


def _train(
    models: Sequence[Model],
    left: Sequence[Model],
    placement: Placement,
    images: Images,
    framed: Mapping[str, Examples],
    folder: SweepFolder,
) -> None:
    """Train those that are left; all models are in the program, so that it is the same however many are left."""
    with contextlib.ExitStack() as held:
        taken = [model for model in left if _take(held, model, placement, images, folder)]
        if not taken:
            return
        places = [place for place, model in enumerate(models) if model in taken]
        learners = [_learner(model, images, framed, folder) for model in models]
        if len(learners) > 1:
            on_device = lie_on_device(learners, placement)
            program = compile_population(learners, pick_devices(placement), on_device=on_device)
        else:
            training = models[0].config.training
            devices = choose_devices(placement, training.batch_size, training.accumulate)
            on_device = lie_on_device(learners, placement, devices.mesh.size)
            program = compile_learner(learners[0], devices, on_device=on_device)
        train(program, lambda place, reason: _note(folder, models[place], reason), places)


def _note(folder: SweepFolder, model: Model, reason: str) -> None:
    report(f"diverged   {model.name}: {reason}")
    by_first(lambda: write_diverged(folder, model.name, reason))
