"""The images as the network sees them, cropped and resized once, before the first step."""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np
from jaxtyping import UInt8

from jaxcnn.data.batch import Examples
from jaxcnn.data.dataset import Split
from jaxcnn.data.preprocessing import Preprocessing, frame
from jaxcnn.inference.tta import views_of
from train.config import TrainConfig

_BATCH_SIZE = 64


def preprocessing_of(config: TrainConfig) -> Preprocessing:
    """What the run does to every image."""
    return Preprocessing(crop=config.crop, image_size=config.image_size, normalization=config.normalization)


def frame_splits(config: TrainConfig, splits: Mapping[str, Split]) -> dict[str, Examples]:
    """Each split in the views that it is evaluated in, of which the first is what is trained on."""
    preprocessing = preprocessing_of(config)
    return {
        name: Examples(
            tuple(_frame_all(view, preprocessing) for view in views_of(split.images, config.tta)), split.labels
        )
        for name, split in splits.items()
    }


def _frame_all(
    images: UInt8[np.ndarray, "n height width channel"], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "n rows columns channel"]:
    """`frame`, by one compiled program for batches of one size; the last one is filled up with black."""
    if preprocessing.keeps_frame(images.shape[1:]):
        return images
    framed = np.empty((len(images), *preprocessing.framed_shape(images.shape[1:])), np.uint8)
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE]
        filled = np.pad(batch, ((0, _BATCH_SIZE - len(batch)), (0, 0), (0, 0), (0, 0)))
        framed[start : start + len(batch)] = _compiled_frame(filled, preprocessing)[: len(batch)]
    return framed


_compiled_frame = partial(jax.jit, static_argnums=1)(frame)
