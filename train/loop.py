"""A run from its first epoch to its last: steps, evaluation, metrics, checkpoints, predictions."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxcnn import checkpoints
from jaxcnn.data.dataset import Split
from jaxcnn.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from jaxcnn.metrics import Scores, Tally, scores, total
from jaxcnn.runs import Predictions, Run, read_epochs, write_epochs, write_predictions
from train.config import TrainConfig
from train.losses import LOSSES
from train.optimizer import build_optimizer, learning_rate_schedule
from train.progress import bar, epoch_line, say
from train.state import TrainState, create_state, parameter_count
from train.step import EvalStep, TrainStep, make_eval_step, make_train_step


class NonFiniteLossError(Exception):
    """The loss became infinite or NaN; the message says at which step."""


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The compiled steps of a run and what they are fed."""

    config: TrainConfig
    splits: Mapping[str, Split]
    schedule: optax.Schedule
    train_step: TrainStep
    eval_step: EvalStep
    key: jax.Array


def train(
    config: TrainConfig, model: nn.Module, splits: Mapping[str, Split], classes: tuple[str, ...], run: Run
) -> dict[str, tuple[int, Scores]]:
    """Train until `config.epochs` are done, from the run's last checkpoint if it has one.

    `splits` are train, validation and test; only the first two decide anything.

    Returns:
        For each split, the number of images and the scores of the best checkpoint.

    Raises:
        NonFiniteLossError: the last good checkpoint is kept.
    """
    steps = steps_per_epoch(splits["train"], config.batch_size)
    schedule = learning_rate_schedule(config.schedule, config.learning_rate, config.warmup_steps, config.epochs * steps)
    optimizer = build_optimizer(schedule, config.weight_decay)
    state = create_state(model, optimizer, splits["train"].images.shape[1:], config.seed)
    say(f"model      {type(model).__name__}, {parameter_count(state):,} parameters")
    trainer = _compile(config, model, optimizer, schedule, splits, state)

    with checkpoints.open_checkpoints(run.checkpoints) as saved:
        if (last := checkpoints.latest_step(saved)) is not None:
            state = checkpoints.load(saved, last, state)
            say(f"resumed    after epoch {last // steps}")
        done = int(state.step)
        # An epoch whose checkpoint was not finished is trained again, and its line written again.
        epochs = [line for line in read_epochs(run) if line["step"] <= done]
        for epoch in range(done // steps + 1, config.epochs + 1):
            state, line = _train_epoch(trainer, state, epoch, steps)
            epochs.append(line)
            write_epochs(run, epochs)
            say(epoch_line(line, config.epochs))
            rank = {"f1_macro": line["validation_f1_macro"], "loss": line["validation_loss"]}
            checkpoints.save(saved, line["step"], state, **rank)

    with checkpoints.open_checkpoints(run.checkpoints) as saved:
        best = checkpoints.load(saved, checkpoints.best_step(saved), state)
    return {name: _write_predictions(trainer, best, name, classes, run) for name in splits}


def _compile(
    config: TrainConfig,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    splits: Mapping[str, Split],
    state: TrainState,
) -> Trainer:
    """Compile both steps ahead of time, so that the time of an epoch holds no compilation."""
    loss = LOSSES[config.loss]
    # Another stream than that of the initial weights, which are drawn from key(seed) itself.
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    batch = next(evaluation_batches(splits["train"], config.batch_size))
    start = time.perf_counter()
    train_step = jax.jit(make_train_step(model, optimizer, loss), donate_argnums=0).lower(state, batch, key).compile()
    eval_step = jax.jit(make_eval_step(model, loss)).lower(state, batch).compile()
    say(f"compiled   in {time.perf_counter() - start:.1f} s")
    return Trainer(config, splits, schedule, train_step, eval_step, key)


def _train_epoch(trainer: Trainer, state: TrainState, epoch: int, steps: int) -> tuple[TrainState, dict[str, Any]]:
    """One pass over the training images and the evaluation after it; returns the line for metrics.jsonl."""
    config = trainer.config
    start = time.perf_counter()
    batches = training_batches(trainer.splits["train"], config.batch_size, seed=config.seed, epoch=epoch)
    tallies: list[Tally] = []
    running: Tally | None = None
    for batch in bar(batches, steps, f"epoch {epoch}/{config.epochs}"):
        state, counted = trainer.train_step(state, batch, trainer.key)
        # The step before is fetched while this one runs, so that the device never waits for the host.
        if running is not None:
            tallies.append(_fetch(running, (epoch - 1) * steps + len(tallies) + 1))
        running = counted
    assert running is not None
    tallies.append(_fetch(running, epoch * steps))
    seconds = time.perf_counter() - start

    line = {
        "epoch": epoch,
        "step": epoch * steps,
        "learning_rate": float(trainer.schedule(epoch * steps - 1)),
        **_prefixed("train", scores(total(tallies))),
    }
    for name in ("validation", "test"):
        line |= _prefixed(name, scores(_evaluate(trainer, state, name)[0]))
    return state, line | {"seconds": seconds, "images_per_second": steps * config.batch_size / seconds}


def _fetch(counted: Tally, step: int) -> Tally:
    fetched = jax.device_get(counted)
    if not np.isfinite(fetched.loss):
        raise NonFiniteLossError(f"the loss is {fetched.loss} at step {step}")
    return fetched


def _evaluate(trainer: Trainer, state: TrainState, name: str) -> tuple[Tally, np.ndarray]:
    """Tally and logits of every image of a split."""
    split = trainer.splits[name]
    outputs = [trainer.eval_step(state, batch) for batch in evaluation_batches(split, trainer.config.batch_size)]
    logits = np.concatenate([logits for _, logits in outputs])[: len(split)]
    return total([counted for counted, _ in outputs]), logits


def _write_predictions(
    trainer: Trainer, state: TrainState, name: str, classes: tuple[str, ...], run: Run
) -> tuple[int, Scores]:
    split = trainer.splits[name]
    counted, logits = _evaluate(trainer, state, name)
    write_predictions(run, name, Predictions(logits, split.labels, split.names, classes))
    return len(split), scores(counted)


def _prefixed(name: str, values: Scores) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in dataclasses.asdict(values).items()}
