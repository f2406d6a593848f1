"""Learners of black images, for tests that compile their steps and don't run them."""

from pathlib import Path

import numpy as np

from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.runs.folder import Run
from train.images import frame_splits
from train.learner import Learner, build_learner
from train.options import make_config

COUNT = 16

# The narrowest network, the smallest images that it takes, and how many channels and masks they have.
SMALLEST = {
    "simplecnn": (50, 1, {"width": 0.05}),
    "unet": (128, 1, {"width": 0.05, "encoder": "random", "cache": False}),
    "segmentation": (16, 1, {"width": 0.05}),
}


def smallest_learner(model: str, **options) -> Learner:
    """The learner of a model at its smallest."""
    size, channels, own = SMALLEST[model]
    config = make_config(model, batch_size=COUNT, **own, **options)
    masks = np.zeros((COUNT, size, size), np.uint8) if model == "segmentation" else None
    images = np.zeros((COUNT, size, size, channels), np.uint8)
    names = tuple(map(str, range(COUNT)))
    split = Split(images, np.arange(COUNT, dtype=np.int32) % 2, names, masks=masks)
    dataset = Dataset("black", ("a", "b"), dict.fromkeys(("train", "validation", "test"), split))
    return build_learner(config, dataset, frame_splits(config.training, dataset), Run(Path("unused")))
