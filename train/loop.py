"""A run from its first step to its last: steps, checkpoints, evaluation, metrics, predictions."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from jaxcnn.data.pipeline import evaluation_batches, training_batches
from jaxcnn.errors import UserError
from jaxcnn.evaluation.counts import Scores, Tally, scores, total
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.inference.trained import Trained, load_best, save_trained
from jaxcnn.runs import checkpoints
from jaxcnn.runs.checkpoints import Checkpoints
from jaxcnn.runs.folder import best_epoch, read_epochs, write_epochs, write_predictions
from train.devices.distributed import Agreement, by_first, end_with_the_others
from train.devices.parallel import distribute, replicate
from train.interruption import InterruptedRunError, Interruption, interruption
from train.position import Position, as_json, from_json, start_of_epoch
from train.progress import bar, epoch_line, say
from train.setup import Setup
from train.state import TrainState, split_frozen
from train.trainer import Trainer


class NonFiniteLossError(Exception):
    """The loss or a parameter became infinite or NaN; the message says at which step."""


def train(trainer: Trainer, state: TrainState) -> dict[str, tuple[int, Scores]]:
    """Train until the run's epochs are done, from its last checkpoint if it has one, else from `state`.

    Returns:
        For each split, the number of images and the scores of the best checkpoint.

    Raises:
        NonFiniteLossError: the last good checkpoint is kept.
        InterruptedRunError: a signal asked for an end; the state is saved.
        UserError: all checkpoints are damaged, or nothing can be written any more.
    """
    with told_in_one_line(trainer.run.folder):
        return _train(trainer, state)


@contextlib.contextmanager
def told_in_one_line(folder: Path) -> Iterator[None]:
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
            f"{error.filename or folder}: {error.strerror}; see to that, then go on with --resume"
        ) from error


def _train(trainer: Trainer, state: TrainState) -> dict[str, tuple[int, Scores]]:
    agreement = Agreement(trainer.parallel)
    with (
        interruption(agreement.largest) as interrupted,
        checkpoints.open_checkpoints(trainer.run.checkpoints) as saved,
        end_with_the_others(UserError, InterruptedRunError, NonFiniteLossError),
    ):
        state, position = _resume(trainer, saved, state)
        lines = [line for line in read_epochs(trainer.run) if line["epoch"] < position.epoch]
        while position.epoch <= trainer.config.epochs:
            state, position = _train_epoch(trainer, saved, interrupted, state, position)
            lines.append(_evaluate_epoch(trainer, interrupted, state, position))
            if best_epoch(lines) is lines[-1]:
                save_best(trainer, state, position.epoch)
            # The line comes last: an epoch without one is evaluated again, and its weights are ranked again.
            by_first(partial(write_epochs, trainer.run, lines))
            say(epoch_line(lines[-1], trainer.config.epochs))
            position = start_of_epoch(position.epoch + 1, len(trainer.classes))
        state = replicate(trainer.parallel, load_best_state(trainer, state))
        results = _write_predictions(trainer, interrupted, state)
        interrupted.settle()
        return results


def _resume(trainer: Trainer, saved: Checkpoints, state: TrainState) -> tuple[TrainState, Position]:
    """Where the run stands: after its last whole checkpoint, or at its beginning."""
    restored = checkpoints.load_latest(saved, state)
    if restored is None:
        return state, start_of_epoch(1, len(trainer.classes))
    for sentence in restored.damaged:
        say(f"damaged    {sentence}")
    position = from_json(restored.progress)
    if position.done < trainer.steps:
        say(f"resumed    in epoch {position.epoch}, after step {position.done} of {trainer.steps}")
        return restored.state, position
    say(f"resumed    after epoch {position.epoch}")
    if position.epoch in (line["epoch"] for line in read_epochs(trainer.run)):
        position = start_of_epoch(position.epoch + 1, len(trainer.classes))
    return restored.state, position


def _train_epoch(
    trainer: Trainer, saved: Checkpoints, interrupted: Interruption, state: TrainState, position: Position
) -> tuple[TrainState, Position]:
    """The steps that are left of an epoch; the last one leaves a checkpoint, and so does one that is interrupted."""
    config, epoch = trainer.config, position.epoch
    batches = training_batches(
        trainer.training,
        config.batch_size,
        seed=config.seed,
        epoch=epoch,
        start=position.done,
        shard=trainer.parallel.shard,
    )
    start = time.perf_counter() - position.seconds
    step = (epoch - 1) * trainer.steps + position.done
    running: Tally | None = None
    for batch in bar(batches, trainer.steps, f"epoch {epoch}/{config.epochs}", done=position.done):
        state, counted = trainer.train_step(state, distribute(trainer.parallel, batch), trainer.key)
        step += 1
        # The step before is fetched while this one runs, so that the device never waits for the host.
        position = add_step(position, running, step - 1)
        running = counted
        if interrupted.poll() or step % config.checkpoint_every == 0 or step == epoch * trainer.steps:
            position = add_step(position, running, step)
            running = None
            position = dataclasses.replace(position, seconds=time.perf_counter() - start)
            check_finite(state, step)
            checkpoints.save(saved, step, state, as_json(position))
            interrupted.raise_if_requested()
    return state, position


def add_step(position: Position, counted: Tally | None, step: int) -> Position:
    """One step further, by what was counted in it; the same position where nothing was."""
    if counted is None:
        return position
    fetched = total([jax.device_get(counted)])
    if not np.isfinite(fetched.loss):
        raise NonFiniteLossError(f"the loss is {fetched.loss} at step {step}")
    return dataclasses.replace(position, done=position.done + 1, counted=position.counted + fetched)


def check_finite(state: TrainState, step: int) -> None:
    """A state that no run can go on from must not take the place of a good one."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params))):
        raise NonFiniteLossError(f"some parameters are infinite or NaN after step {step}")


def _evaluate_epoch(
    trainer: Trainer, interrupted: Interruption, state: TrainState, position: Position
) -> dict[str, Any]:
    """The epoch's line for metrics.jsonl."""
    counted = {name: _evaluate(trainer, interrupted, state, name)[0] for name in ("validation", "test")}
    return epoch_metrics(trainer, position, counted)


def epoch_metrics(setup: Setup, position: Position, counted: Mapping[str, Tally]) -> dict[str, Any]:
    """An epoch's line for metrics.jsonl, from what was counted on the splits after it."""
    step = position.epoch * setup.steps
    line = {"epoch": position.epoch, "step": step, "learning_rate": float(setup.schedule(step - 1))}
    for name, of_split in {"train": position.counted, **counted}.items():
        line |= {f"{name}_{key}": value for key, value in dataclasses.asdict(scores(of_split)).items()}
    images = setup.steps * setup.config.batch_size
    return line | {"seconds": position.seconds, "images_per_second": images / position.seconds}


def _evaluate(trainer: Trainer, interrupted: Interruption, state: TrainState, name: str) -> tuple[Tally, np.ndarray]:
    """Tally and logits of every image of a split."""
    outputs = []
    examples, shard = trainer.examples[name], trainer.parallel.shard
    for batch in evaluation_batches(examples, trainer.config.batch_size, shard):
        outputs.append(jax.device_get(trainer.eval_step(state, distribute(trainer.parallel, batch))))
        interrupted.poll()
        interrupted.raise_if_requested()
    logits = np.concatenate([logits for _, logits in outputs])[: len(examples)]
    return total([counted for counted, _ in outputs]), logits


def save_best(setup: Setup, state: TrainState, epoch: int) -> None:
    """Let the state's classifier be the run's best."""
    network, image_shape = setup.network, setup.splits["train"].images.shape[1:]
    about = (network.preprocessing, image_shape, setup.classes, epoch, setup.config.tta)
    save_trained(setup.run.best, Trained(network.model, state.variables, *about))


def load_best_state(setup: Setup, state: TrainState) -> TrainState:
    """The state with the weights of the best epoch, on the default device."""
    frozen, learnt = split_frozen(setup.network, load_best(setup.run).variables)
    return state.with_variables(frozen, learnt)


def _write_predictions(trainer: Trainer, interrupted: Interruption, state: TrainState) -> dict[str, tuple[int, Scores]]:
    """Predict every split; returns the number of images and the scores of each."""
    results = {}
    for name, split in trainer.splits.items():
        counted, logits = _evaluate(trainer, interrupted, state, name)
        by_first(partial(write_logits, trainer, name, logits))
        results[name] = len(split), scores(counted)
    return results


def write_logits(setup: Setup, name: str, logits: Float32[np.ndarray, "n classes"]) -> None:
    """Write the predictions for a split."""
    split = setup.splits[name]
    predictions = Predictions(logits, split.labels, split.duplicates, split.names, setup.classes)
    write_predictions(setup.run, name, predictions)
