"""Which images a run trains on, chooses by and is tested on: the official split or the leak-free one.

A test image with a near-duplicate in Training measures memory. `official` leaves such training images where they are
and is comparable with published scores; `leak-free` takes them out of Training. Testing is never touched.

Validation images (for early stopping, the best checkpoint and hyper-parameters) come from Training only, in whole
groups of near-duplicates: a validation image with a copy among the images trained on would measure memory, too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.data.duplicates import THRESHOLD, duplicate_groups, make_thumbnails

Protocol = Literal["leak-free", "official"]


@dataclasses.dataclass(frozen=True)
class Leakage:
    """Groups of near-duplicates that hold both training and test images.

    Attributes:
        groups: their number.
        train: the training images in them.
        test: the test images in them.
        copied: the names of these test images.
    """

    groups: int
    train: int
    test: int
    copied: tuple[str, ...]


def partition(
    dataset: Dataset, protocol: Protocol, validation_fraction: float, *, seed: int
) -> tuple[Dataset, Leakage]:
    """Divide a data set.

    Under `leak-free` a training image goes if its group of near-duplicates holds a test image, even if it is linked to
    that by way of other copies: then it is a copy of a copy.

    Args:
        dataset: Training and Testing.
        protocol: official or leak-free.
        validation_fraction: share of the training images of each class to hold out for validation.
        seed: of the choice of the validation images.

    Returns:
        The data set with train, validation and test, and the leakage between Training and Testing as they are, under
        either protocol.

    Raises:
        ValueError: a class would have no image left to train on, or none to validate on.
    """
    whole, test = dataset.splits["train"], dataset.splits["test"]
    groups = duplicate_groups(make_thumbnails(np.concatenate([whole.images, test.images])))
    train_groups, test_groups = np.split(groups, [len(whole)])
    leaked = np.isin(train_groups, test_groups)
    copied = np.flatnonzero(np.isin(test_groups, train_groups))
    leakage = Leakage(
        groups=len(np.unique(train_groups[leaked])),
        train=int(leaked.sum()),
        test=len(copied),
        copied=tuple(test.names[i] for i in copied),
    )
    kept = np.flatnonzero(~leaked if protocol == "leak-free" else np.full(len(leaked), True))
    training = whole.take(kept)
    held_out = hold_out(training.labels, train_groups[kept], validation_fraction, seed=seed)
    splits = {
        "train": training.take(np.flatnonzero(~held_out)),
        "validation": training.take(np.flatnonzero(held_out)),
        "test": test,
    }
    _check_classes(dataset, training, splits)
    return dataclasses.replace(dataset, splits=splits), leakage


def hold_out(
    labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], fraction: float, *, seed: int
) -> Bool[np.ndarray, " n"]:
    """Choose whole groups, in a random order, as long as each class stays within its share.

    The share is the rounded fraction of the class, but at least one image. It is reached exactly unless the groups left
    are all larger than what is missing.

    Returns:
        Whether each image is held out.
    """
    group_of = np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((group_of.max(initial=-1) + 1, labels.max(initial=-1) + 1), int)
    np.add.at(counts, (group_of, labels), 1)
    room = np.maximum(1, np.round(fraction * counts.sum(axis=0)).astype(int))
    chosen = []
    for group in np.random.default_rng(seed).permutation(len(counts)):
        if (counts[group] <= room).all():
            room -= counts[group]
            chosen.append(group)
    return np.isin(group_of, chosen)


def _check_classes(dataset: Dataset, training: Split, splits: Mapping[str, Split]) -> None:
    """Refuse a class of Training of which no image is left to train on, or none is held out."""
    whole = dataset.splits["train"]
    for label in np.unique(whole.labels):
        before, usable, train, validation = (
            int((split.labels == label).sum()) for split in (whole, training, splits["train"], splits["validation"])
        )
        if not (train and validation):
            copies = f" ({before - usable} more are copies of test images)" if before > usable else ""
            raise ValueError(
                f"the {usable} training images of {dataset.classes[label]}{copies}"
                f" leave {train} to train on and {validation} to validate on"
            )


def describe(dataset: Dataset, leakage: Leakage, protocol: Protocol) -> dict[str, Any]:
    """The divided data of a run as data.json holds it: protocol, counts and fingerprints."""
    return {
        "source": dataset.source,
        "protocol": protocol,
        "duplicate_threshold": THRESHOLD,
        "crossing": dataclasses.asdict(leakage),
        "left_out": leakage.train if protocol == "leak-free" else 0,
        "images": {name: _count_classes(split, dataset.classes) for name, split in dataset.splits.items()},
        "fingerprints": {name: split.fingerprint() for name, split in dataset.splits.items()},
    }


def _count_classes(split: Split, classes: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(split.labels, minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))
