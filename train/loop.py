"""Train the learners of a program from the first step to the last, with checkpoints, evaluation and predictions."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.errors import UserError
from jaxcnn.evaluation.counts import Tally, total
from jaxcnn.inference.trained import Trained, load_best, save_trained
from jaxcnn.inference.unlike import fit_unlike
from jaxcnn.runs import checkpoints
from jaxcnn.runs.checkpoints import Checkpoints
from jaxcnn.runs.folder import best_epoch, read_epochs, write_epochs, write_predictions
from train.feed import EVALUATED, saved_steps
from train.learner import Learner
from train.machine.background import Behind, write_behind
from train.machine.interruption import Interruption, UnfinishedRunError, interruption
from train.machine.processes import by_first, end_with_the_others
from train.machine.progress import epoch_line, progress_bar, report
from train.program import Program
from train.state import TrainState
from train.tensorboard import write_events


@dataclasses.dataclass(frozen=True)
class Position:
    """The position of a run inside an epoch, saved with each checkpoint.

    Attributes:
        epoch: the one that is trained, from 1.
        done: steps of it that are done.
        counted: sums over these steps, in double precision, so that they are the same in however many parts they came.
        seconds: that these steps took.
    """

    epoch: int
    done: int
    counted: Tally
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint; floats survive JSON to the bit."""
        counted = {"loss": float(self.counted.loss), "confusion": self.counted.confusion.tolist()}
        return {"epoch": self.epoch, "done": self.done, "counted": counted, "seconds": self.seconds}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Position":
        """What `to_json` gave."""
        counted = Tally(np.float64(content["counted"]["loss"]), np.array(content["counted"]["confusion"], np.int64))
        return Position(content["epoch"], content["done"], counted, content["seconds"])


# Of the learners that are still trained, by their places in the program. All stand at the same step.
Positions = dict[int, Position]

# The sums over a split, and what is kept of the logits of each of its images.
Evaluated = tuple[Tally, np.ndarray]

# By place and split: the number of images, and their scores.
Results = dict[int, dict[str, tuple[int, dict[str, float]]]]


@dataclasses.dataclass(frozen=True)
class _Training:
    """What all parts of the loop have in their hands.

    Attributes:
        behind: writes what is to be written, in order, while the devices go on.
        saved: the checkpoints of each learner that is trained, by its place.
        interrupted: by a signal.
        diverged: is told the place of a learner whose loss or state is not finite any more, and what happened.
    """

    program: Program
    behind: Behind
    saved: Mapping[int, Checkpoints]
    interrupted: Interruption
    diverged: Callable[[int, str], None]

    @property
    def first(self) -> Learner:
        """All learners have its number of steps, batch size and classes."""
        return self.program.learners[0]


def train(program: Program, diverged: Callable[[int, str], None], places: Sequence[int] = (0,)) -> Results:
    """Train all epochs, starting from the last checkpoints that all learners have, or from the beginning.

    Learners that are not trained, or diverge, take their steps like the others, so that the program stays the same and
    with it the others' bits; nothing comes of these steps.

    Args:
        diverged: is told the place of a learner that diverges, and what happened. Its last good checkpoint is kept, and
            the others go on.
        places: the learners to train.

    Returns:
        For each place whose learner didn't diverge and each split, the number of images and the scores of the best
        checkpoint.

    Raises:
        InterruptedRunError: a signal asked for an end; the states are saved.
        UserError: all checkpoints of a learner are damaged, or nothing can be written any more.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(write_errors_in_one_line(program.learners[places[0]].run.folder))
        interrupted = held.enter_context(interruption(program.layout.agree))
        saved = {
            place: held.enter_context(checkpoints.open_checkpoints(program.learners[place].run.checkpoints))
            for place in places
        }
        behind = held.enter_context(write_behind())
        held.enter_context(end_with_the_others(UserError, UnfinishedRunError))
        training = _Training(program, behind, saved, interrupted, diverged)
        state, positions = _resume(training)
        lines = {
            place: [line for line in read_epochs(program.learners[place].run) if line["epoch"] < position.epoch]
            for place, position in positions.items()
        }
        while positions and _first(positions).epoch <= training.first.config.training.epochs:
            start = time.perf_counter() - _first(positions).seconds
            state, positions = _train_epoch(training, state, positions)
            positions = _evaluate_epoch(training, state, positions, lines, start)
            positions = {place: _start_of_epoch(training, position.epoch + 1) for place, position in positions.items()}
        behind.wait()
        results = _write_predictions(training, positions)
        interrupted.check_last()
        return results


def _first(positions: Positions) -> Position:
    return next(iter(positions.values()))


def _start_of_epoch(training: _Training, epoch: int) -> Position:
    classes = len(training.first.dataset.classes)
    return Position(epoch, 0, Tally(np.float64(0), np.zeros((classes, classes), np.int64)), 0.0)


@contextlib.contextmanager
def write_errors_in_one_line(folder: Path) -> Iterator[None]:
    """Where nothing can be written any more, say so and how to go on.

    Raises:
        UserError: in the place of an OSError.
    """
    try:
        yield
    except BrokenPipeError:  # What reads the output has closed it, as `head` does; no file is the matter.
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}; fix that, then continue with --resume"
        ) from error


def _resume(training: _Training) -> tuple[TrainState, Positions]:
    """Where the learners stand: after the last checkpoint that is whole for all, or at their beginning."""
    program, until = training.program, None
    while True:
        restored = {
            place: checkpoints.load_latest(saved, program.layout.like(place), until=until)
            for place, saved in training.saved.items()
        }
        steps = {0 if checkpoint is None else checkpoint.step for checkpoint in restored.values()}
        if len(steps) == 1:
            break
        until = min(steps)
    states, positions = list(program.initial), {place: _start_of_epoch(training, 1) for place in restored}
    for place, checkpoint in restored.items():
        if checkpoint is not None:
            states[place], positions[place] = checkpoint.state, Position.from_json(checkpoint.progress)
            for sentence in checkpoint.damaged:
                report(f"damaged    {sentence}")
    if steps != {0}:
        epoch, done = _first(positions).epoch, _first(positions).done
        if done < training.first.steps_per_epoch:
            report(f"resumed    in epoch {epoch}, after step {done} of {training.first.steps_per_epoch}")
        else:
            report(f"resumed    after epoch {epoch}")
            # An epoch without a line in metrics.jsonl is evaluated again.
            runs = [program.learners[place].run for place in positions]
            if all(epoch in (line["epoch"] for line in read_epochs(run)) for run in runs):
                positions = {place: _start_of_epoch(training, epoch + 1) for place in positions}
    return program.layout.join(states), positions


def _train_epoch(training: _Training, state: TrainState, positions: Positions) -> tuple[TrainState, Positions]:
    """The steps that are left of an epoch; the last one leaves a checkpoint, and so does one that is interrupted."""
    program, interrupted, options = training.program, training.interrupted, training.first.config.training
    epoch, done, steps = _first(positions).epoch, _first(positions).done, training.first.steps_per_epoch
    start = time.perf_counter() - _first(positions).seconds
    saved, running = saved_steps(training.first), None
    with progress_bar(steps, f"epoch {epoch}/{options.epochs}", done=done) as bar:
        for count, piece in program.steps.feed(epoch, done):
            state, counted = program.steps.train(state, piece)
            done += count
            # The piece before is fetched while this one runs, so that the device never waits for the host.
            positions = _add_piece(training, positions, running)
            running = counted
            bar.update(count)
            if interrupted.poll() or done in saved:
                positions = _add_piece(training, positions, running)
                running = None
                seconds = time.perf_counter() - start
                positions = {
                    place: dataclasses.replace(position, seconds=seconds) for place, position in positions.items()
                }
                positions = _save(training, state, positions)
                interrupted.raise_if_requested()
            if not positions:
                break
    return state, positions


def _add_piece(training: _Training, positions: Positions, counted: Tally | None) -> Positions:
    """Some steps further, without the learners that they made diverge; the same where nothing was counted."""
    if counted is None:
        return positions
    fetched, further = jax.device_get(counted), {}
    for place, position in positions.items():
        for loss, confusion in zip(*dataclasses.astuple(training.program.steps.part(fetched, place)), strict=True):
            added = position.counted + total([Tally(loss, confusion)])
            position = dataclasses.replace(position, done=position.done + 1, counted=added)
            if not np.isfinite(loss):
                training.diverged(place, f"the loss is {loss} at step {_step(training, position)}")
                break
        else:
            further[place] = position
    return further


def _step(training: _Training, position: Position) -> int:
    """The number of its last step in the run."""
    return (position.epoch - 1) * training.first.steps_per_epoch + position.done


def _save(training: _Training, state: TrainState, positions: Positions) -> Positions:
    """A checkpoint of each learner, without those whose state is not finite: it must not replace a good one."""
    layout, good = training.program.layout, {}
    finite = jax.tree.map(lambda leaf: leaf[np.newaxis], jax.device_get(layout.finite(state)))
    for place, position in positions.items():
        if wrong := not_finite(layout.part(finite, place)):
            training.diverged(place, f"the {wrong} are infinite or NaN after step {_step(training, position)}")
        else:
            good[place] = position
    # What was written before goes first: the memory need not hold more copies than those of one epoch.
    training.behind.wait()
    training.behind.do(partial(_write_checkpoints, training, good, layout.states(state, good)))
    return good


def _write_checkpoints(training: _Training, positions: Positions, copies: Mapping[int, TrainState]) -> None:
    for place in positions:
        # Before any learner writes its next one: two are kept, so there is always one that all have.
        checkpoints.wait(training.saved[place])
    for place, position in positions.items():
        checkpoints.save(training.saved[place], _step(training, position), copies[place], position.to_json())


def not_finite(finite: Mapping[str, Any]) -> str:
    """The first part of a state that `finite_parts` found infinite or NaN; empty where all are finite."""
    return next((name for name, is_finite in finite.items() if not np.all(is_finite)), "")


def _evaluate_epoch(
    training: _Training,
    state: TrainState,
    positions: Positions,
    lines: dict[int, list[dict[str, Any]]],
    start: float,
) -> Positions:
    """Add the epoch's line to each learner's, and keep its classifier if it is its best so far."""
    counted = _evaluate(training, state, EVALUATED) if positions else {}
    good = {}
    for place, position in positions.items():
        learner = training.program.learners[place]
        scores = {"train": learner.task.scores(position.counted)}
        scores |= {name: _scores(learner, name, evaluated[place]) for name, evaluated in counted.items()}
        if wrong := [name for name, found in scores.items() if not np.isfinite(found["loss"])]:
            training.diverged(place, f"the {wrong[0]} loss is {scores[wrong[0]]['loss']} after epoch {position.epoch}")
            continue
        good[place] = position
        lines[place].append(_epoch_metrics(learner, position, scores, time.perf_counter() - start))
    improved = [place for place in good if best_epoch(lines[place]) is lines[place][-1]]
    best = training.program.layout.states(state, improved) if improved else {}
    for place in good:
        learner, confusion = training.program.learners[place], counted["validation"][place][0].confusion
        training.behind.do(partial(_write_epoch, learner, [*lines[place]], best.get(place), confusion))
        name = f"{learner.run.name}: " if len(training.program.learners) > 1 else ""
        report(f"{name}{epoch_line(lines[place][-1], learner.config.training.epochs)}")
    return good


def _write_epoch(learner: Learner, lines: list[dict[str, Any]], best: TrainState | None, confusion: np.ndarray) -> None:
    """Write what an epoch leaves: its classifier, if it is the best so far, its events, its line."""
    if best is not None:
        network, dataset = learner.network, learner.dataset
        image_shape = dataset.splits["train"].images.shape[1:]
        about = (network.preprocessing, image_shape, dataset.classes, lines[-1]["epoch"], learner.config.training.tta)
        save_trained(learner.run.best, Trained(network.model, best.variables, *about))
    if learner.config.training.tensorboard:
        by_first(partial(write_events, learner.run, lines, confusion, learner.dataset.classes))
    # The line comes last: an epoch without one is evaluated again, and its weights are ranked again.
    by_first(partial(write_epochs, learner.run, lines))


def _epoch_metrics(
    learner: Learner, position: Position, scores: Mapping[str, Mapping[str, float]], seconds: float
) -> dict[str, Any]:
    """An epoch's line for metrics.jsonl, from the scores on each split and the seconds that all of it took."""
    step = position.epoch * learner.steps_per_epoch
    line = {"epoch": position.epoch, "step": step, "learning_rate": float(learner.schedule(step - 1))}
    for name, found in scores.items():
        line |= {f"{name}_{score}": value for score, value in found.items()}
    images = learner.steps_per_epoch * learner.config.training.batch_size
    speeds = {"images_per_second": images / position.seconds, "overall_images_per_second": images / seconds}
    return line | {"seconds": position.seconds} | speeds


def _scores(learner: Learner, name: str, evaluated: Evaluated) -> dict[str, float]:
    counted, outputs = evaluated
    targets = learner.examples[name].labels
    more = learner.task.more_scores(outputs, targets, learner.dataset.splits[name], learner.dataset.classes)
    return learner.task.scores(counted) | more


def _evaluate(training: _Training, state: TrainState, names: Sequence[str]) -> dict[str, list[Evaluated]]:
    """Tally and outputs of every image of some splits, for each learner."""
    steps, first, found = training.program.steps, training.first, []
    for piece in steps.pieces(names):
        found.append(steps.evaluate(state, piece))
        training.interrupted.poll()
        training.interrupted.raise_if_requested()
    fetched, evaluated = jax.device_get(found), dict[str, list[Evaluated]]({name: [] for name in names})
    for place in range(len(training.program.learners)):
        parts = [steps.part(piece, place) for piece in fetched]
        counted, outputs = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        start = 0
        for name in names:
            images = len(first.examples[name])
            batches = slice(start, start := start + math.ceil(images / first.config.training.batch_size))
            sums = zip(counted.loss[batches], counted.confusion[batches], strict=True)
            tally = total([Tally(loss, confusion) for loss, confusion in sums])
            evaluated[name].append((tally, np.concatenate(outputs[batches])[:images]))
    return evaluated


def _write_predictions(training: _Training, positions: Positions) -> Results:
    """Predict every split with the best weights of each learner."""
    program = training.program
    results: Results = {place: {} for place in positions}
    if not positions:
        return results
    states, best = list(program.initial), {place: load_best(program.learners[place].run) for place in positions}
    for place, trained in best.items():
        variables = program.learners[place].network.split(trained.variables)
        states[place] = states[place].with_variables(*variables)
    state, splits = program.layout.join(states), training.first.dataset.splits
    # Before the predictions, which mark a run as finished.
    for place, trained in best.items():
        if trained.unlike is None:
            fitted = fit_unlike(trained, splits["train"].images, splits["validation"].images)
            if fitted is not trained:
                save_trained(program.learners[place].run.best, fitted)
    for name, split in splits.items():
        evaluated = _evaluate(training, state, (name,))[name]
        for place in positions:
            learner, (_, outputs) = program.learners[place], evaluated[place]
            targets, classes = learner.examples[name].labels, learner.dataset.classes
            predictions = learner.task.predictions(outputs, targets, split, classes)
            by_first(partial(write_predictions, learner.run, name, predictions))
            results[place][name] = len(split), _scores(learner, name, evaluated[place])
    return results
