"""The same models alone and as members of populations; runs in a process that has eight devices."""

import os
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from random_weights import save_random_weights

import train.learner
from jaxcnn import UNet
from jaxcnn.data.load import load_dataset
from jaxcnn.data.pipeline import evaluation_batches, training_batches
from jaxcnn.data.protocol import partition
from jaxcnn.runs.folder import Run
from train.images import frame_splits
from train.learner import build_learner, make_steps
from train.options import Config, make_config
from train.sweep.population import compile_population

STEPS = 3


def sgd(schedule: Any, weight_decay: Any, factors: Any) -> optax.GradientTransformation:
    """In the place of Adam, whose first steps divide rounding errors by themselves."""

    def below_unet(updates: Any, _: Any = None) -> Any:
        scaled = {name: jax.tree.map(lambda leaf: factor * leaf, updates[name]) for name, factor in factors.items()}  # noqa: B023
        return {**updates, **scaled}

    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule), optax.stateless(below_unet))


def simplecnns() -> list[Config]:
    """Nine: on eight devices they are two on each of four and one on the fifth, beside a copy of itself."""
    recipe = {"augment": "brain-mri", "class_weights": "balanced", "label_smoothing": 0.1, "ema": 0.3, "tta": "flip"}
    base = make_config("simplecnn", width=0.05, max_images=24, batch_size=4, **recipe)
    return [
        base.replace(seed=n, learning_rate=0.01 + 0.01 * n, dropout=0.1 * (n % 3), weight_decay=0.1 * n)
        for n in range(9)
    ]


def unets(encoder: Path, **options: Any) -> list[Config]:
    """Two, the second of which learns slower below the border."""
    base = make_config("unet", encoder=str(encoder), width=0.02, max_images=24, batch_size=4, dropout=0.3, **options)
    return [base, base.replace(seed=1, learning_rate=0.02, unet_learning_rate=0.001)]


def results(configs: Sequence[Config], devices: int, alone: Sequence[int]) -> dict[str, Any]:
    """All that the members have become, and what some of them become alone."""
    dataset, _ = partition(load_dataset("phantom", configs[0].training.max_images), "leak-free", 0.1, seed=0)
    framed = frame_splits(configs[0].training, dataset)
    learners = [build_learner(config, dataset, framed, Run(Path("unused"))) for config in configs]
    program = compile_population(learners, jax.devices()[:devices])
    state = program.layout.join(program.initial)
    spread = state.step.sharding
    return {
        "members": _together(program, state),
        "alone": {place: _alone(learners[place], program.initial[place]) for place in alone},
        "devices": spread.num_devices,
        "slots": len(state.step),
    }


def _together(program: Any, state: Any) -> list[dict[str, Any]]:
    losses = []
    for (_, batches), _ in zip(program.steps.feed(1, 0), range(STEPS), strict=False):
        state, counted = program.steps.train(state, batches)
        losses.append(np.asarray(counted.loss))
    logits = np.asarray(program.steps.evaluate(state, next(program.steps.pieces(("test",))))[1])
    own = program.layout.states(state, range(len(program.learners)))
    return [_result([loss[n] for loss in losses], own[n], logits[n]) for n in own]


def _alone(learner: Any, state: Any) -> dict[str, Any]:
    train_step, eval_step = map(jax.jit, make_steps(learner))
    losses = []
    for batch in _batches(learner):
        state, counted = train_step(state, batch, learner.key)
        losses.append(np.asarray(counted.loss))
    batch = next(evaluation_batches(learner.examples["test"], 4))
    return _result(losses, jax.device_get(state), np.asarray(eval_step(state, batch)[1]))


def _batches(learner: Any) -> list[Any]:
    training = learner.config.training
    order = training_batches(learner.training, training.batch_size, seed=training.seed, epoch=1)
    return [batch for batch, _ in zip(order, range(STEPS), strict=False)]


def _result(losses: Sequence[np.ndarray], state: Any, logits: np.ndarray) -> dict[str, Any]:
    learnt = {"params": state.params, "batch_stats": state.batch_stats, "average": state.average}
    return {"losses": np.array(losses), "logits": logits, **jax.tree.map(np.asarray, learnt)}


def write_results(folder: Path) -> None:
    """All results, for the test to compare."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    save_random_weights(folder / "unet", UNet(features=2), (32, 48, 3))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(train.learner, "build_optimizer", sgd)
        on = partial(unets, folder / "unet")
        found = {
            "simplecnn": results(simplecnns(), devices=8, alone=(4, 8)),
            "unet": results(on(cache=False), devices=2, alone=(1,)),
            "unet on features": results(on(), devices=1, alone=()),
        }
    (folder / "results.pickle").write_bytes(pickle.dumps(found))
