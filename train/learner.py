"""Build a model with everything that trains it from the options, before anything is compiled."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

from jaxcnn.data.augment import Augmentation
from jaxcnn.data.batch import WHOLE, Batch, Examples, Shard
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.pipeline import evaluation_batches, steps_per_epoch
from jaxcnn.errors import UserError
from jaxcnn.evaluation.tasks import TASKS, Task
from jaxcnn.runs.folder import Run
from train.features import load_features
from train.losses import LOSSES, balanced_weights, build_objective
from train.machine.progress import report
from train.network import Network, build_network
from train.optimizer import Number, build_optimizer, learning_rate_schedule
from train.options import Config
from train.start import check_start, start_moments
from train.state import TrainState, initial_state, parameter_count
from train.step import EvalStep, TrainStep, make_eval_step, make_train_step
from train.tensorboard import check_tensorboard


@dataclasses.dataclass(frozen=True)
class Learner:
    """A model with everything that trains it.

    Attributes:
        training: what is trained on, in one or several views: images, or what the frozen part makes of them.
        examples: of each split, in the views that it is evaluated in.
        steps_per_epoch: full batches of the training images.
        shapes: of the state before the first step.
        draw: computes that state, by the seed.
    """

    config: Config
    dataset: Dataset
    run: Run
    network: Network
    training: Examples
    examples: Mapping[str, Examples]
    steps_per_epoch: int
    shapes: TrainState
    draw: Callable[[], TrainState]

    @property
    def task(self) -> Task:
        """What the logits are of, and how it is scored."""
        return TASKS[self.config.architecture.task]

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate at each step."""
        return build_schedule(self.config, self.steps_per_epoch, hyperparameters(self.config))[0]

    @property
    def key(self) -> jax.Array:
        """Of all that is random in a step, in another stream than the initial weights."""
        return jax.random.fold_in(jax.random.key(self.config.training.seed), 1)


def build_learner(config: Config, dataset: Dataset, framed: Mapping[str, Examples], run: Run) -> Learner:
    """Build the learner of a configuration; `framed` is what `frame_splits` makes of the data set.

    Raises:
        UserError: the options don't fit one another or the images, weights can't be read, or features not be written.
    """
    training = config.training
    network = build_network(config, len(dataset.classes), dataset.splits["train"].images.shape[1:])
    steps = steps_per_epoch(framed["train"], training.batch_size)
    shape = framed["train"].inputs[0].shape[1:]
    _, optimizer = build_schedule(config, steps, hyperparameters(config))
    shapes, draw = initial_state(network, optimizer, shape, training.seed, average=training.ema > 0)
    if training.start_optimizer:
        draw = partial(_with_moments, draw, start_moments(training, shapes.opt_state))
    learner = Learner(config, dataset, run, network, _first_view(framed["train"]), framed, steps, shapes, draw)
    return _on_features(learner) if network.frozen and config.network.cache else learner


def _with_moments(draw: Callable[[], TrainState], moments: Any) -> TrainState:
    """A drawn state with these moments of Adam; the learning rate's schedule begins anew."""
    state = draw()
    return dataclasses.replace(state, opt_state=(moments, *state.opt_state[1:]))


def check_learner(config: Config, dataset: Dataset) -> None:
    """Check that `build_learner` can make a learner of the configuration; nothing is computed.

    Raises:
        UserError: the network doesn't fit the images, there are too few of them, or the warm-up is as long as the run.
    """
    if config.training.tensorboard:
        check_tensorboard()
    check_start(config.training, dataset.classes)
    build_network(config, len(dataset.classes), dataset.splits["train"].images.shape[1:])
    training, count = config.training, len(dataset.splits["train"])
    if count < training.batch_size:
        raise UserError(f"--batch-size {training.batch_size}: is larger than the {count} training images; lower it")
    steps = training.epochs * (count // training.batch_size)
    if training.warmup_steps >= steps:
        raise UserError(
            f"--warmup-steps {training.warmup_steps}: the run has {steps} steps, so the learning rate would never reach"
            " its peak; give fewer"
        )


def hyperparameters(config: Config) -> dict[str, float]:
    """Return the numbers that the optimizer and dropout take, which may be traced."""
    training = config.training
    own = {
        module: getattr(config.network, option) / training.learning_rate
        for module, option in config.architecture.learning_rates.items()
    }
    return {
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "dropout": training.dropout,
        **own,
    }


def build_schedule(
    config: Config, steps_per_epoch: int, values: Mapping[str, Number]
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The learning rate over a run, and the optimizer that follows it, for some `hyperparameters`."""
    training = config.training
    steps = training.epochs * steps_per_epoch
    schedule = learning_rate_schedule(training.schedule, values["learning_rate"], training.warmup_steps, steps)
    factors = {module: values[module] for module in config.architecture.learning_rates}
    return schedule, build_optimizer(schedule, values["weight_decay"], factors)


def make_steps(
    learner: Learner, axis_name: str | None = None, values: Mapping[str, Number] | None = None
) -> tuple[TrainStep, EvalStep]:
    """Build the training step and the evaluation step, to be compiled.

    Args:
        axis_name: mapped axis that the batch is spread over, or None.
        values: take the place of some `hyperparameters`; they may be traced.
    """
    config, training = learner.config, learner.config.training
    numbers = {**hyperparameters(config), **(values or {})}
    network = dataclasses.replace(learner.network, model=learner.network.model.clone(dropout=numbers["dropout"]))
    _, optimizer = build_schedule(config, learner.steps_per_epoch, numbers)
    loss, labels = LOSSES[training.loss], learner.dataset.splits["train"].labels
    weights = balanced_weights(labels, len(learner.dataset.classes)) if training.class_weights == "balanced" else None
    train_step = make_train_step(
        network,
        optimizer,
        loss,
        axis_name,
        objective=build_objective(training.loss, training.label_smoothing, weights),
        accumulate=training.accumulate,
        ema=training.ema,
    )
    return train_step, make_eval_step(network, loss, axis_name, learner.task.output)


def first_batches(learner: Learner, shard: Shard = WHOLE) -> tuple[Batch, Batch]:
    """Batches like those that are trained on, and like those that are evaluated."""
    size = learner.config.training.batch_size
    training, evaluated = _first_view(learner.training), learner.examples["train"]
    batch = next(evaluation_batches(training, size, shard))
    return dataclasses.replace(batch, mask=None), next(evaluation_batches(evaluated, size, shard))


def report_model(learner: Learner) -> None:
    """Print the size of the model, and of its features if it is trained on them."""
    state = learner.shapes
    learning, whole = (parameter_count(params) for params in (state.params, state.variables["params"]))
    some = f", {learning:,} of them learn" if learning < whole else ""
    report(f"model      {type(learner.network.model).__name__}, {whole:,} parameters{some}")
    if learner.network.on_features:
        every = (learner.training, *learner.examples.values())
        arrays = {id(array): array for examples in every for array in examples.inputs}
        shape = "x".join(map(str, learner.training.inputs[0].shape[1:]))
        megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
        report(f"features   {shape} of every image, {megabytes:.0f} MB")


def _on_features(learner: Learner) -> Learner:
    """Return the learner trained and evaluated on the outputs of its frozen part, which are computed once."""
    network, state = learner.network, learner.draw()
    splits, framed = learner.dataset.splits, learner.examples

    def features(name: str, images: np.ndarray, view: tuple[int, int] | None = None) -> np.ndarray:
        return load_features(network, state.frozen, dataclasses.replace(splits[name], images=images), view=view)

    examples = {
        name: Examples(tuple(features(name, images) for images in split.inputs), split.labels)
        for name, split in framed.items()
    }
    training = _first_view(examples["train"])
    if network.augmentation != Augmentation():
        # Another stream than those of the initial weights and of the steps.
        seed = int(np.random.SeedSequence((learner.config.training.seed, 2)).generate_state(1)[0])
        plain, views = framed["train"].inputs[0], range(learner.config.network.views)
        training = Examples(tuple(features("train", plain, (seed, n)) for n in views), training.labels)
    on_features = dataclasses.replace(network, on_features=True)
    return dataclasses.replace(learner, network=on_features, training=training, examples=examples, draw=lambda: state)


def _first_view(examples: Examples) -> Examples:
    return Examples(examples.inputs[:1], examples.labels)
