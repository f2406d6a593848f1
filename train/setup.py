"""What a model is trained with: network, examples, optimizer and steps, made from its options before any compiling."""

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxcnn.data.augment import Augmentation
from jaxcnn.data.batch import WHOLE, Batch, Examples, Shard
from jaxcnn.data.dataset import Split
from jaxcnn.data.pipeline import evaluation_batches, steps_per_epoch
from jaxcnn.runs.folder import Run
from train.average import start_average, with_average
from train.config import TrainConfig, UNetConfig
from train.deferred import Deferred
from train.features import load_features
from train.losses import LOSSES, LossFunction, balanced_weights, build_objective
from train.models import build_network
from train.network import Network, on_features
from train.optimizer import build_optimizer, learning_rate_schedule
from train.progress import say
from train.state import TrainState, create_state, parameter_count
from train.step import EvalStep, TrainStep, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a model is trained with, before anything is compiled.

    Attributes:
        config: its options.
        splits: train, validation and test; only the first two decide anything.
        classes: names of the labels.
        run: where its results go.
        network: the model.
        training: what is trained on, in one or several views: images, or what the frozen part makes of them.
        examples: of each split, in the views that it is evaluated in.
        steps: in an epoch.
        schedule: of the learning rate.
        optimizer: that follows it.
        loss: of an image.
        key: of all that is random in a step.
    """

    config: TrainConfig
    splits: Mapping[str, Split]
    classes: tuple[str, ...]
    run: Run
    network: Network
    training: Examples
    examples: Mapping[str, Examples]
    steps: int
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    loss: LossFunction
    key: jax.Array


def prepare(
    config: TrainConfig, splits: Mapping[str, Split], framed: Mapping[str, Examples], classes: tuple[str, ...], run: Run
) -> tuple[Setup, Deferred[TrainState]]:
    """What a model is trained with, and its state before the first step.

    Args:
        config: its options.
        splits: train, validation and test.
        framed: what `frame_splits` makes of these.
        classes: names of the labels.
        run: where its results go.

    Raises:
        UserError: the options don't fit one another, or weights can't be read, or features not be written.
    """
    network, variables = build_network(config, len(classes), splits["train"].images.shape[1:])
    examples, training = framed, _first_view(framed["train"])
    steps = steps_per_epoch(training, config.batch_size)
    schedule, optimizer = follow_schedule(config, steps, hyperparameters(config))
    state = variables.then(partial(create_state, network, optimizer))
    if config.ema:
        state = state.then(start_average)
    if network.frozen and isinstance(config, UNetConfig) and config.cache:
        computed = state.compute()
        state = dataclasses.replace(state, compute=lambda: computed)
        training, examples = _cached(config, network, computed, splits, framed)
        network = on_features(network)
    # Another stream than that of the initial weights, which are drawn from key(seed) itself.
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    loss = LOSSES[config.loss]
    setup = Setup(
        config, splits, classes, run, network, training, examples, steps, schedule, optimizer, loss=loss, key=key
    )
    return setup, state


def hyperparameters(config: TrainConfig) -> dict[str, float]:
    """What the optimizer and the dropout are to be told: numbers, which may be traced."""
    unet_factor = config.unet_learning_rate / config.learning_rate if isinstance(config, UNetConfig) else 1.0
    return {
        "learning_rate": config.learning_rate,
        "unet_factor": unet_factor,
        "weight_decay": config.weight_decay,
        "dropout": config.dropout,
    }


def follow_schedule(
    config: TrainConfig, steps: int, values: Mapping[str, float | Float[Array, ""]]
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The learning rate over a run of so many steps an epoch, and the optimizer that follows it."""
    schedule = learning_rate_schedule(
        config.schedule, values["learning_rate"], config.warmup_steps, config.epochs * steps
    )
    unet_factor = values["unet_factor"] if isinstance(config, UNetConfig) else None
    return schedule, build_optimizer(schedule, values["weight_decay"], unet_factor=unet_factor)


def make_steps(setup: Setup, axis_name: str | None = None) -> tuple[TrainStep, EvalStep]:
    """The model's training step and evaluation step, to be compiled."""
    config, network, loss = setup.config, setup.network, setup.loss
    training = setup.splits["train"]
    weights = balanced_weights(training.labels, len(setup.classes)) if config.class_weights == "balanced" else None
    objective = build_objective(config.loss, config.label_smoothing, weights)
    train_step = make_train_step(
        network, setup.optimizer, loss, axis_name, objective=objective, accumulate=config.accumulate
    )
    if config.ema:
        train_step = with_average(train_step, config.ema)
    return train_step, make_eval_step(network, loss, axis_name)


def first_batches(setup: Setup, shard: Shard = WHOLE) -> tuple[Batch, Batch]:
    """Batches like those that are trained on, and like those that are evaluated."""
    training, evaluated = (
        next(evaluation_batches(of, setup.config.batch_size, shard))
        for of in (_first_view(setup.training), setup.examples["train"])
    )
    return training, evaluated


def say_model(setup: Setup, state: TrainState) -> None:
    """Tell the size of the model, and of the features that it is trained on, if it is."""
    learning, whole = (parameter_count(params) for params in (state.params, state.variables["params"]))
    some = f", {learning:,} of them learn" if learning < whole else ""
    say(f"model      {type(setup.network.model).__name__}, {whole:,} parameters{some}")
    if setup.training.inputs[0].dtype != np.uint8:
        arrays = {id(array): array for of in (setup.training, *setup.examples.values()) for array in of.inputs}
        shape = "x".join(map(str, setup.training.inputs[0].shape[1:]))
        megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
        say(f"features   {shape} of every image, {megabytes:.0f} MB")


def _cached(
    config: UNetConfig,
    network: Network,
    state: TrainState,
    splits: Mapping[str, Split],
    framed: Mapping[str, Examples],
) -> tuple[Examples, dict[str, Examples]]:
    """The outputs of the frozen part, to train on and to evaluate."""
    examples = {}
    for name, split in splits.items():
        views = [dataclasses.replace(split, images=images) for images in framed[name].inputs]
        examples[name] = Examples(tuple(load_features(network, state.frozen, view) for view in views), split.labels)
    training = _first_view(examples["train"])
    if network.augmentation != Augmentation():
        # Another stream than those of the initial weights and of the steps.
        seed = int(np.random.SeedSequence((config.seed, 2)).generate_state(1)[0])
        plain = dataclasses.replace(splits["train"], images=framed["train"].inputs[0])
        training = Examples(
            tuple(load_features(network, state.frozen, plain, view=(seed, n)) for n in range(config.views)),
            training.labels,
        )
    return training, examples


def _first_view(examples: Examples) -> Examples:
    return Examples(examples.inputs[:1], examples.labels)
