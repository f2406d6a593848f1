"""The same models alone and as members of populations; runs in a process that has eight devices."""

import dataclasses
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

import train.setup
from jaxcnn import UNet
from jaxcnn.data.load import load_dataset
from jaxcnn.data.pipeline import evaluation_batches, training_batches
from jaxcnn.data.protocol import partition
from jaxcnn.runs.folder import Run
from train.config import SimpleCNNConfig, TrainConfig, UNetConfig
from train.framing import frame_splits
from train.setup import make_steps, prepare
from train.sweep.population import build_population, member_states, share_batch, stack_batches, stack_states

STEPS = 3


def sgd(schedule: Any, weight_decay: Any, *, unet_factor: Any = None) -> optax.GradientTransformation:
    """In the place of Adam, whose first steps divide rounding errors by themselves."""

    def below_unet(updates: Any, _: Any = None) -> Any:
        if unet_factor is None:
            return updates
        return {**updates, "unet": jax.tree.map(lambda leaf: unet_factor * leaf, updates["unet"])}

    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule), optax.stateless(below_unet))


def simplecnns() -> list[TrainConfig]:
    """Nine: on eight devices they are two on each of four and one on the fifth, beside a copy of itself."""
    recipe = {"augment": "brain-mri", "class_weights": "balanced", "label_smoothing": 0.1, "ema": 0.3, "tta": "flip"}
    base = SimpleCNNConfig(width=0.05, max_images=24, batch_size=4, **recipe)
    return [
        dataclasses.replace(base, seed=n, learning_rate=0.01 + 0.01 * n, dropout=0.1 * (n % 3), weight_decay=0.1 * n)
        for n in range(9)
    ]


def unets(encoder: Path, **options: Any) -> list[TrainConfig]:
    """Two, the second of which learns slower below the border."""
    base = UNetConfig(encoder=str(encoder), width=0.02, max_images=24, batch_size=4, dropout=0.3, **options)
    return [base, dataclasses.replace(base, seed=1, learning_rate=0.02, unet_learning_rate=0.001)]


def results(configs: Sequence[TrainConfig], devices: int, alone: Sequence[int]) -> dict[str, Any]:
    """All that the members have become, and what some of them become alone."""
    dataset = load_dataset("phantom", configs[0].max_images)
    splits = partition(dataset, "leak-free", 0.1, seed=0).splits
    framed = frame_splits(configs[0], splits)
    prepared = [prepare(config, splits, framed, dataset.classes, Run(Path("unused"))) for config in configs]
    members, states = [setup for setup, _ in prepared], [jax.device_get(state.compute()) for _, state in prepared]
    population = build_population(members, states[0], jax.devices()[:devices])
    found = _together(population, states)
    return {
        "members": found,
        "alone": {place: _alone(members[place], states[place]) for place in alone},
        "devices": population.mesh.size,
        "slots": population.slots,
    }


def _together(population: Any, states: Sequence[Any]) -> list[dict[str, Any]]:
    mesh, slots, members = population.mesh, population.slots, population.members
    state = stack_states(mesh, slots, states)
    losses = []
    for batches in zip(*map(_batches, members), strict=True):
        state, counted = population.train_step(state, stack_batches(mesh, slots, batches))
        losses.append(np.asarray(counted.loss))
    batch = next(evaluation_batches(members[0].examples["test"], 4))
    logits = np.asarray(population.eval_step(state, share_batch(mesh, batch))[1])
    own = member_states(state, range(len(members)))
    return [_result([loss[n] for loss in losses], own[n], logits[n]) for n in range(len(members))]


def _alone(setup: Any, state: Any) -> dict[str, Any]:
    train_step, eval_step = map(jax.jit, make_steps(setup))
    losses = []
    for batch in _batches(setup):
        state, counted = train_step(state, batch, setup.key)
        losses.append(np.asarray(counted.loss))
    batch = next(evaluation_batches(setup.examples["test"], 4))
    return _result(losses, jax.device_get(state), np.asarray(eval_step(state, batch)[1]))


def _batches(setup: Any) -> list[Any]:
    order = training_batches(setup.training, setup.config.batch_size, seed=setup.config.seed, epoch=1)
    return [batch for batch, _ in zip(order, range(STEPS), strict=False)]


def _result(losses: Sequence[np.ndarray], state: Any, logits: np.ndarray) -> dict[str, Any]:
    learnt = {"params": state.params, "batch_stats": state.batch_stats, "average": state.average}
    return {"losses": np.array(losses), "logits": logits, **jax.tree.map(np.asarray, learnt)}


def write_results(folder: Path) -> None:
    """All results, for the test to compare."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    save_random_weights(folder / "unet", UNet(features=2), (32, 48, 3))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(train.setup, "build_optimizer", sgd)
        on = partial(unets, folder / "unet")
        found = {
            "simplecnn": results(simplecnns(), devices=8, alone=(4, 8)),
            "unet": results(on(cache=False), devices=2, alone=(1,)),
            "unet on features": results(on(), devices=1, alone=()),
        }
    (folder / "results.pickle").write_bytes(pickle.dumps(found))
