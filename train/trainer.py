"""What a run needs before its first step: examples, compiled steps, and the state to begin with."""

import dataclasses
import time
from collections.abc import Mapping

import jax
import numpy as np
import optax

from jaxcnn.data.augment import Augmentation
from jaxcnn.data.dataset import Split
from jaxcnn.data.pipeline import Examples, evaluation_batches, images_of, steps_per_epoch
from jaxcnn.runs import Run
from jaxcnn.tta import views_of
from train.average import start_average, with_average
from train.config import TrainConfig, UNetConfig
from train.features import load_features
from train.losses import LOSSES, balanced_weights, build_objective
from train.models import build_network
from train.network import Network, on_features
from train.optimizer import build_optimizer, learning_rate_schedule
from train.parallel import Parallel, compile_eval_step, compile_train_step, distribute, replicate
from train.progress import say
from train.state import TrainState, create_state, parameter_count
from train.step import EvalStep, TrainStep, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A run, ready to go.

    Attributes:
        config: its options.
        splits: train, validation and test; only the first two decide anything.
        classes: names of the labels.
        run: where its results go.
        parallel: the devices.
        network: the model.
        training: what is trained on, in one or several views: images, or what the frozen part makes of them.
        examples: of each split, in the views that it is evaluated in.
        steps: in an epoch.
        schedule: of the learning rate.
        train_step: compiled.
        eval_step: compiled.
        key: of all that is random in a step.
    """

    config: TrainConfig
    splits: Mapping[str, Split]
    classes: tuple[str, ...]
    run: Run
    parallel: Parallel
    network: Network
    training: Examples
    examples: Mapping[str, Examples]
    steps: int
    schedule: optax.Schedule
    train_step: TrainStep
    eval_step: EvalStep
    key: jax.Array


def build_trainer(
    config: TrainConfig, splits: Mapping[str, Split], classes: tuple[str, ...], run: Run, parallel: Parallel
) -> tuple[Trainer, TrainState]:
    """The trainer, and the state before the first step.

    Raises:
        UserError: the options don't fit one another, or weights can't be read, or features not be written.
    """
    network, variables = build_network(config, len(classes), splits["train"].images.shape[1:])
    examples = {name: Examples(views_of(of.images, config.tta), of.labels) for name, of in splits.items()}
    training = images_of(splits["train"])
    steps = steps_per_epoch(training, config.batch_size)
    schedule = learning_rate_schedule(config.schedule, config.learning_rate, config.warmup_steps, config.epochs * steps)
    optimizer = build_optimizer(schedule, config.weight_decay, unet_factor=_unet_factor(config))
    state = create_state(network, optimizer, variables)
    if config.ema:
        state = start_average(state)
    say(f"model      {type(network.model).__name__}, {_count(state)}")
    if network.frozen and isinstance(config, UNetConfig) and config.cache:
        training, examples = _cached(config, network, state, splits)
        network = on_features(network)

    # Another stream than that of the initial weights, which are drawn from key(seed) itself.
    key_data = jax.random.key_data(jax.random.fold_in(jax.random.key(config.seed), 1))
    key = jax.random.wrap_key_data(replicate(parallel, key_data))
    state = replicate(parallel, state)
    batch, evaluated = (
        distribute(parallel, next(evaluation_batches(of, config.batch_size, parallel.shard)))
        for of in (_first_view(training), examples["train"])
    )
    # Compiled ahead of time, so that the time of an epoch holds no compilation.
    start = time.perf_counter()
    train_step = _build_train_step(config, network, optimizer, splits["train"], len(classes), parallel.axis_name)
    train_step = compile_train_step(parallel, train_step, state, batch, key)
    eval_step = make_eval_step(network, LOSSES[config.loss], parallel.axis_name)
    eval_step = compile_eval_step(parallel, eval_step, state, evaluated)
    say(f"compiled   in {time.perf_counter() - start:.1f} s")
    trainer = Trainer(
        config, splits, classes, run, parallel, network, training, examples, steps, schedule, train_step, eval_step, key
    )
    return trainer, state


def _build_train_step(
    config: TrainConfig,
    network: Network,
    optimizer: optax.GradientTransformation,
    split: Split,
    classes: int,
    axis_name: str | None,
) -> TrainStep:
    """The step that the options ask for; the split is the one that is trained on."""
    weights = balanced_weights(split.labels, classes) if config.class_weights == "balanced" else None
    objective = build_objective(config.loss, config.label_smoothing, weights)
    loss = LOSSES[config.loss]
    step = make_train_step(network, optimizer, loss, axis_name, objective=objective, accumulate=config.accumulate)
    return with_average(step, config.ema) if config.ema else step


def _unet_factor(config: TrainConfig) -> float:
    return config.unet_learning_rate / config.learning_rate if isinstance(config, UNetConfig) else 1.0


def _count(state: TrainState) -> str:
    learning, whole = (parameter_count(params) for params in (state.params, state.variables["params"]))
    return f"{whole:,} parameters" + (f", {learning:,} of them learn" if learning < whole else "")


def _cached(
    config: UNetConfig, network: Network, state: TrainState, splits: Mapping[str, Split]
) -> tuple[Examples, dict[str, Examples]]:
    """The outputs of the frozen part, to train on and to evaluate."""
    start = time.perf_counter()
    examples = {}
    for name, split in splits.items():
        views = [dataclasses.replace(split, images=images) for images in views_of(split.images, config.tta)]
        examples[name] = Examples(tuple(load_features(network, state.frozen, view) for view in views), split.labels)
    training = _first_view(examples["train"])
    if network.augmentation != Augmentation():
        # Another stream than those of the initial weights and of the steps.
        seed = int(np.random.SeedSequence((config.seed, 2)).generate_state(1)[0])
        training = Examples(
            tuple(load_features(network, state.frozen, splits["train"], view=(seed, n)) for n in range(config.views)),
            training.labels,
        )
    arrays = {id(array): array for of in (training, *examples.values()) for array in of.inputs}
    shape = "x".join(map(str, training.inputs[0].shape[1:]))
    megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
    say(f"features   {shape} of every image, {megabytes:.0f} MB, in {time.perf_counter() - start:.1f} s")
    return training, examples


def _first_view(examples: Examples) -> Examples:
    return Examples(examples.inputs[:1], examples.labels)
