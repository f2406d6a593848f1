"""What is measured, with this project. Each function prepares one piece of work and returns it, to be called again."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
import optax

from benchmarks.inputs import encoded_images, random_images, random_labels, random_weights
from jaxcnn import UNet
from jaxcnn.cpu import keep_freed_memory
from jaxcnn.data.batch import Batch
from jaxcnn.data.image import decode_grey
from jaxcnn.models.table import variable_shapes
from jaxcnn.program_cache import keep_programs
from train.config import SimpleCNNConfig, TrainConfig, UNetConfig
from train.losses import LOSSES
from train.models import build_network
from train.network import on_features
from train.optimizer import build_optimizer, learning_rate_schedule
from train.state import create_state
from train.step import make_eval_step, make_train_step

Work = Callable[[], object]

# As every command of `python -m train` does.
keep_freed_memory()
keep_programs()


def simplecnn_training(batch: int, size: int) -> Work:
    """A step of training: gradients, AdamW, scores."""
    return _training(SimpleCNNConfig(), random_images(batch, size, 1), size)


def transfer_training(batch: int, size: int) -> Work:
    """The same for the U-Net classifier, from the features that were computed before training."""
    features = np.random.default_rng(0).random((batch, size // 16, size // 16, 256), np.float32)
    return _training(UNetConfig(encoder="random"), features, size)


def uncached_transfer_training(batch: int, size: int) -> Work:
    """The same from the images: the frozen encoder runs in every step."""
    return _training(UNetConfig(encoder="random", cache=False), random_images(batch, size, 1), size)


def _training(config: TrainConfig, inputs: np.ndarray, size: int) -> Work:
    network, variables = build_network(config, 4, (size, size, 1))
    optimizer = build_optimizer(learning_rate_schedule("constant", 1e-3, 0, 1), 0.0)
    start = variables.then(partial(create_state, network, optimizer))
    if isinstance(config, UNetConfig) and config.cache:
        network = on_features(network)
    batch = Batch(inputs, random_labels(len(inputs)), np.ones(len(inputs), bool))
    key = jax.random.key(0)
    # As `build_trainer` does: the weights are drawn meanwhile.
    with ThreadPoolExecutor(max_workers=1) as background:
        drawn = background.submit(start.compute)
        train_step = jax.jit(make_train_step(network, optimizer, LOSSES[config.loss]), donate_argnums=0)
        step = train_step.lower(start.shapes, batch, key).compile()
    state = drawn.result()

    def work() -> None:
        nonlocal state
        state, tally = step(state, batch, key)
        jax.block_until_ready(tally)

    return work


def simplecnn_inference(batch: int, size: int) -> Work:
    """Logits and scores of a batch."""
    config = SimpleCNNConfig()
    network, variables = build_network(config, 4, (size, size, 1))
    state = create_state(network, optax.identity(), random_weights(variables.shapes))
    step = jax.jit(make_eval_step(network, LOSSES[config.loss]))
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
    return lambda: np.stack([decode_grey(file, size) for file in files])
