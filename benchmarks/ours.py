"""What is measured, with this project. Each function prepares one piece of work and returns it, to be called again."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import optax

from benchmarks.inputs import encoded_images, random_images, random_labels, random_masks, random_weights
from jaxcnn import UNet
from jaxcnn.cpu import keep_freed_memory
from jaxcnn.data.batch import Batch
from jaxcnn.data.image import to_square
from jaxcnn.data.readers.pictures import read_picture
from jaxcnn.models.table import variable_shapes
from jaxcnn.program_cache import keep_programs
from train.losses import LOSSES
from train.network import build_network, draw_variables
from train.optimizer import build_optimizer, learning_rate_schedule
from train.options import Config, make_config
from train.state import create_state, initial_state
from train.step import make_eval_step, make_train_step

Work = Callable[[], object]

# As every command of `python -m train` does.
keep_freed_memory()
keep_programs()


def simplecnn_training(batch: int, size: int) -> Work:
    """A step of training: gradients, AdamW, scores."""
    return _training(make_config("simplecnn"), random_images(batch, size, 1), size)


def transfer_training(batch: int, size: int) -> Work:
    """The same for the U-Net classifier, from the features that were computed before training."""
    features = np.random.default_rng(0).random((batch, size // 16, size // 16, 256), np.float32)
    return _training(make_config("unet", encoder="random"), features, size)


def uncached_transfer_training(batch: int, size: int) -> Work:
    """The same from the images: the frozen encoder runs in every step."""
    return _training(make_config("unet", encoder="random", cache=False), random_images(batch, size, 1), size)


def unet_training(batch: int, size: int) -> Work:
    """A step of training the U-Net itself, on masks: gradients, AdamW, Dice and cross-entropy."""
    return _training(make_config("segmentation", width=1.0), random_images(batch, size, 3), size)


def _training(config: Config, inputs: np.ndarray, size: int) -> Work:
    segments = config.architecture.task == "segmentation"
    shape = (size, size, inputs.shape[-1] if segments else 1)
    labels = random_masks(len(inputs), size) if segments else random_labels(len(inputs))
    network = build_network(config, 2 if segments else 4, shape)
    optimizer = build_optimizer(learning_rate_schedule("constant", 1e-3, 0, 1), 0.0, {})
    shapes, draw = initial_state(network, optimizer, shape, seed=0)
    network = dataclasses.replace(network, on_features=inputs.dtype != np.uint8)
    batch = Batch(inputs, labels, np.ones(len(inputs), bool))
    key = jax.random.key(0)
    # As `compile_learner` does: the weights are drawn meanwhile.
    with ThreadPoolExecutor(max_workers=1) as background:
        drawn = background.submit(draw)
        train_step = jax.jit(make_train_step(network, optimizer, LOSSES[config.training.loss]), donate_argnums=0)
        step = train_step.lower(shapes, batch, key).compile()
    state = drawn.result()

    def work() -> None:
        nonlocal state
        state, tally = step(state, batch, key)
        jax.block_until_ready(tally)

    return work


def simplecnn_inference(batch: int, size: int) -> Work:
    """Logits and scores of a batch."""
    config = make_config("simplecnn")
    network = build_network(config, 4, (size, size, 1))
    shapes, _ = draw_variables(network, (size, size, 1))
    state = create_state(network, optax.identity(), random_weights(shapes))
    step = jax.jit(make_eval_step(network, LOSSES[config.training.loss]))
    inputs = Batch(random_images(batch, size, 1), random_labels(batch), np.ones(batch, bool))
    return lambda: jax.block_until_ready(step(state, inputs))


def unet_inference(batch: int, size: int) -> Work:
    """Mask logits of a batch."""
    model = UNet()
    variables = random_weights(variable_shapes(model, (size, size, 3)))
    predict = jax.jit(lambda variables, images: model.apply(variables, images / 255.0, train=False))
    images = random_images(batch, size, 3).astype(np.float32)
    return lambda: jax.block_until_ready(predict(variables, images))


def data_preparation(batch: int, size: int) -> Work:
    """JPEG files to a batch of grey squares."""
    files = encoded_images(batch)
    return lambda: np.stack([to_square(read_picture(file).slices[0].pixels, size) for file in files])
