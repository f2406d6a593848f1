"""Runs with scores, as training leaves them, without training."""

import numpy as np

from jaxcnn.data.kaggle import CLASSES
from jaxcnn.evaluation import measures
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.folder import SPLITS, create_run, write_epochs, write_predictions

DATA = {
    "source": "phantom",
    "protocol": "leak-free",
    "left_out": 7,
    "images": {split: dict.fromkeys(CLASSES, 3) for split in SPLITS},
    "fingerprints": {split: str(place) * 64 for place, split in enumerate(SPLITS)},
}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"jaxcnn": "0.1.0", "jax": "0.10.2"},
    "device_kind": "cpu",
    "device_count": 2,
    "git_revision": "0123456789abcdef+",
}


def options(batch_size=16, learning_rate=1e-3, dropout=0.1):
    return {"model": "simplecnn", "batch_size": batch_size, "learning_rate": learning_rate, "dropout": dropout}


def save_run(folder, config, f1, data=DATA, *, predictions=False):
    """A run; `f1` gives macro F1 on training, validation and test images for each epoch."""
    run = create_run(folder, config, data, ENVIRONMENT, overwrite=False)
    # The line of an epoch has the learning rate that the schedule has come to.
    write_epochs(run, [epoch_line(epoch, values) for epoch, values in enumerate(f1, start=1)])
    if predictions:
        save_predictions(run, seed=1)
    return run


def epoch_line(epoch, f1):
    scores = {}
    for split, value in zip(SPLITS, f1, strict=True):
        scores |= {f"{split}_loss": 1 - value, f"{split}_accuracy": value}
        scores |= {f"{split}_f1_macro": value, f"{split}_f1_weighted": value / 2}
    return {"epoch": epoch, "learning_rate": 0.0, **scores}


def save_baseline(folder, data=DATA):
    """A run without epochs; returns its macro F1 by split, too."""
    run = create_run(folder, {"baseline": "hog"}, data, ENVIRONMENT, overwrite=False)
    return run, save_predictions(run, seed=0)


def save_predictions(run, seed, names=("x",) * 40):
    random, scores = np.random.default_rng(seed), {}
    labels = np.arange(40, dtype=np.int32) % 4
    for split in SPLITS:
        logits = (random.normal(size=(40, 4)) + np.eye(4)[labels]).astype(np.float32)
        scores[split] = float(measures(logits, labels).f1_macro[0])
        write_predictions(run, split, Predictions(logits, labels, np.arange(40), tuple(names), CLASSES))
    return scores


def save_grid(folder):
    """A sweep of 12 models that get better from one to the next, a baseline, and one that failed at once."""
    grid = [(rate, size, dropout) for rate in (1e-5, 3e-3, 1e-1) for size in (8, 64) for dropout in (0, 0.5)]
    for place, (rate, size, dropout) in enumerate(grid):
        f1 = (0.4 + place / 25, 0.3 + place / 20, 0.3 + place / 40)
        name = f"model-{place:02}"
        save_run(folder / name, options(size, rate, dropout), [(0.1, 0.1, 0.9), f1, f1], predictions=place == 11)
    save_baseline(folder / "hog")
    save_run(folder / "diverged", options(8, 1e-1), [])
    return folder
