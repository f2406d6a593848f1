"""The same steps of the same model on one device and on eight; runs in a process that has eight."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from networks import unet_network

from jaxcnn import SimpleCNN, UNetClassifier
from jaxcnn.data.augment import Augmentation
from jaxcnn.data.batch import Batch, Examples
from jaxcnn.data.pipeline import evaluation_batches
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.inference.tta import views_of
from jaxcnn.models.segmentation import SegmentationUNet
from train.losses import LOSSES
from train.machine.devices import (
    Parallel,
    Placement,
    choose_devices,
    compile_eval_step,
    compile_train_step,
    distribute,
    replicate,
)
from train.network import Network, draw_variables
from train.state import create_state
from train.step import make_eval_step, make_train_step

BATCH_SIZE, STEPS = 16, 3
SPREADS = {
    "jit on one": Placement(devices=1),
    "jit on eight": Placement(devices=8),
    "pmap on eight": Placement(devices=8, parallel="pmap"),
}


def simplecnn() -> tuple[Network, tuple[int, int, int]]:
    model = SimpleCNN(
        stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6, dropout=0.5
    )
    return Network(model, Preprocessing(), Augmentation(rotation=10.0)), (50, 50, 1)


def unet() -> tuple[Network, tuple[int, int, int]]:
    model = UNetClassifier(features=1, head_features=3, hidden_features=4, dropout=0.5)
    return unet_network(model, Preprocessing(normalization="per-image-z-score"), Augmentation()), (128, 128, 1)


def segmentation() -> tuple[Network, tuple[int, int, int]]:
    model = SegmentationUNet(features=1, dropout=0.5)
    return Network(model, Preprocessing(), Augmentation(rotation=10.0)), (32, 32, 1)


def results(
    network: Network, image_shape: tuple[int, int, int], *, cached: bool = False, loss: str = "cross-entropy"
) -> dict[str, Any]:
    """For each spread the losses, the logits after some steps, the parameters, and the average with its statistics."""
    # Not 0: in the third step with those images one input of a ReLU, of 16,384, is 3e-7 on one device and -5e-7 on
    # eight, within rounding of each other, and the gradient jumps by what that pixel has a part in.
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (BATCH_SIZE, *image_shape), np.uint8)
    labels = np.arange(BATCH_SIZE, dtype=np.int32) % 4
    if isinstance(network.model, SegmentationUNet):
        labels = random.integers(0, 2, images.shape[:3], np.uint8)
    # SGD, since Adam's first steps divide rounding errors by themselves.
    optimizer = optax.sgd(0.01)
    state = create_state(network, optimizer, draw_variables(network, image_shape)[1](0), average=True)
    views = views_of(images, "flip")
    if cached:
        encode = jax.jit(network.inputs)
        views = tuple(np.asarray(encode(state.frozen, view, None)) for view in views)
        network = dataclasses.replace(network, on_features=True)
    examples = Examples(views, labels)
    return {
        name: _train(network, optimizer, state, examples, choose_devices(placement, BATCH_SIZE), loss)
        for name, placement in SPREADS.items()
    }


def _train(
    network: Network,
    optimizer: optax.GradientTransformation,
    state: Any,
    examples: Examples,
    parallel: Parallel,
    loss: str,
) -> dict[str, Any]:
    key = jax.random.wrap_key_data(replicate(parallel, jax.random.key_data(jax.random.key(1))))
    batch = distribute(parallel, Batch(examples.inputs[0], examples.labels, np.ones(BATCH_SIZE, bool)))
    evaluated = distribute(parallel, next(evaluation_batches(examples, BATCH_SIZE)))
    state = replicate(parallel, state)
    step = make_train_step(network, optimizer, LOSSES[loss], parallel.axis_name, ema=0.3)
    step = compile_train_step(parallel, step, state, batch, key)
    losses = []
    for _ in range(STEPS):
        state, counted = step(state, batch, key)
        losses.append(float(counted.loss))
    evaluate = make_eval_step(network, LOSSES[loss], parallel.axis_name)
    _, logits = compile_eval_step(parallel, evaluate, state, evaluated)(state, evaluated)
    found = {"losses": losses, "logits": logits, "params": state.params, "average": state.average}
    return jax.tree.map(np.asarray, found)


def write_results(path: Path) -> None:
    """All networks' results, for the test to compare."""
    assert jnp.zeros(()).devices() <= set(jax.devices())
    assert len(jax.devices()) == 8
    found = {
        "simplecnn": results(*simplecnn()),
        "unet": results(*unet()),
        "unet on features": results(*unet(), cached=True),
        "segmentation": results(*segmentation(), loss="dice-cross-entropy"),
    }
    path.write_bytes(pickle.dumps(found))
