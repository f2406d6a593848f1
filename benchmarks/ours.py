"""What is measured, with this project. Each function prepares one piece of work and returns it, to be called again."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contest import Contest
from benchmarks.inputs import encoded_images, random_images, random_labels, random_masks
from jaxcnn import SimpleCNN, UNet
from jaxcnn.cpu import keep_freed_memory, release_freed_memory
from jaxcnn.data.batch import Batch, in_batches
from jaxcnn.data.image import to_square
from jaxcnn.data.readers.pictures import read_picture
from jaxcnn.models.table import variable_shapes
from jaxcnn.program_cache import keep_programs
from train.losses import LOSSES
from train.network import build_network
from train.optimizer import build_optimizer, learning_rate_schedule
from train.options import Config, make_config
from train.state import initial_state
from train.step import make_train_step

Work = Callable[[], object]

# As every command of `python -m train` does.
keep_freed_memory()
keep_programs()


wait = jax.block_until_ready


def device() -> tuple[str, int | None]:
    """What works, and the most bytes of its memory that were in use; None on a CPU."""
    found = jax.devices()[0]
    return found.device_kind, (found.memory_stats() or {}).get("peak_bytes_in_use")


def simplecnn_training(contest: Contest) -> Work:
    """A step of training: gradients, AdamW, scores."""
    return _training(contest, _config(contest, "simplecnn"), random_images(contest.batch, contest.size, 1))


def transfer_training(contest: Contest) -> Work:
    """The same for the U-Net classifier, from the features that were computed before training."""
    shape = (contest.batch, contest.size // 16, contest.size // 16, 256)
    features = np.random.default_rng(0).random(shape, np.float32)
    return _training(contest, _config(contest, "unet", encoder="random"), features)


def uncached_transfer_training(contest: Contest) -> Work:
    """The same from the images: the frozen encoder runs in every step."""
    config = _config(contest, "unet", encoder="random", cache=False)
    return _training(contest, config, random_images(contest.batch, contest.size, 1))


def unet_training(contest: Contest) -> Work:
    """A step of training the U-Net itself, on masks: gradients, AdamW, Dice and cross-entropy."""
    config = _config(contest, "segmentation", width=1.0)
    return _training(contest, config, random_images(contest.batch, contest.size, 3))


def _config(contest: Contest, model: str, **options: Any) -> Config:
    if contest.arithmetic == "tf32":
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    return make_config(model, dtype="bfloat16" if contest.arithmetic == "bfloat16" else "float32", **options)


def _placed(contest: Contest, inputs: Any) -> Any:
    """The inputs on the device, where a contest names one."""
    return jax.device_put(inputs) if contest.device else inputs


def _training(contest: Contest, config: Config, inputs: np.ndarray) -> Work:
    size = contest.size
    segments = config.architecture.task == "segmentation"
    shape = (size, size, inputs.shape[-1] if segments else 1)
    labels = random_masks(len(inputs), size) if segments else random_labels(len(inputs))
    network = build_network(config, 2 if segments else 4, shape)
    optimizer = build_optimizer(learning_rate_schedule("constant", 1e-3, 0, 1), 0.0, {})
    shapes, draw = initial_state(network, optimizer, shape, seed=0)
    network = dataclasses.replace(network, on_features=inputs.dtype != np.uint8)
    batch = _placed(contest, Batch(inputs, labels, np.ones(len(inputs), bool)))
    key = jax.random.key(0)
    # As `compile_learner` does: the weights are drawn meanwhile, and what the compiler needed is given back.
    with ThreadPoolExecutor(max_workers=1) as background:
        drawn = background.submit(draw)
        train_step = jax.jit(make_train_step(network, optimizer, LOSSES[config.training.loss]), donate_argnums=0)
        step = train_step.lower(shapes, batch, key).compile()
    state = drawn.result()
    release_freed_memory()

    def work() -> object:
        nonlocal state
        state, tally = step(state, batch, key)
        return tally

    return work


def simplecnn_inference(contest: Contest) -> Work:
    """Logits of a batch."""
    return _inference(contest, SimpleCNN(dtype=_config(contest, "simplecnn").training.dtype), 1)


def unet_inference(contest: Contest) -> Work:
    """Mask logits of a batch."""
    return _inference(contest, UNet(dtype=_config(contest, "segmentation").training.dtype), 3)


def _inference(contest: Contest, model: nn.Module, channels: int) -> Work:
    """Every command and `jaxcnn.load` infer so; on a device that the contest names, the images are there."""
    variables = random_weights(variable_shapes(model, (contest.size, contest.size, channels)))

    @jax.jit
    def predict(variables: Mapping[str, Any], images: jax.Array) -> Any:
        return model.apply(variables, images.astype(jnp.float32) / 255, train=False)

    images = _placed(contest, random_images(contest.batch, contest.size, channels))
    compiled = partial(predict, variables)
    return lambda: compiled(images) if contest.device else in_batches(compiled, images, contest.batch)


def random_weights(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Small parameters, and batch statistics of 1, for variables of these shapes."""
    random = np.random.default_rng(3)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(0.05 * random.standard_normal(leaf.shape, np.float32))

    batch_stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes["batch_stats"])
    return {"params": jax.tree.map(draw, shapes["params"]), "batch_stats": batch_stats}


def data_preparation(contest: Contest) -> Work:
    """JPEG files to a batch of grey squares."""
    files = encoded_images(contest.batch)
    # As `python -m jaxcnn.data prepare` does.
    threads = ThreadPoolExecutor(os.cpu_count())

    def prepare(file: bytes) -> np.ndarray:
        return to_square(read_picture(file).slices[0].pixels, contest.size)

    return lambda: np.stack(list(threads.map(prepare, files)))
