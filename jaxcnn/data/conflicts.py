"""Find copies of an image with different labels: one of the labels is wrong, and only the user knows which."""

import dataclasses

import numpy as np

from jaxcnn.data.dataset import Dataset, joined
from jaxcnn.data.duplicates import THRESHOLD, make_thumbnails, similar_pairs


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Two images, by name and class, that are copies of each other."""

    names: tuple[str, str]
    labels: tuple[str, str]


def conflicts(dataset: Dataset) -> list[Conflict]:
    """Find the pairs of near-duplicates with different labels.

    Neighbouring slices of one patient may be as alike, and truly have different labels, where a tumour begins: slices
    of one known patient are not taken for copies.
    """
    images = joined(list(dataset.splits.values()))
    patients = images.patients or ("",) * len(images)
    return [
        Conflict(
            (images.names[i], images.names[j]), (dataset.classes[images.labels[i]], dataset.classes[images.labels[j]])
        )
        for first, second in similar_pairs(make_thumbnails(images.images), THRESHOLD)
        for i, j in zip(first.tolist(), second.tolist(), strict=True)
        if images.labels[i] != images.labels[j] and not (patients[i] and patients[i] == patients[j])
    ]


def without(dataset: Dataset, names: set[str]) -> Dataset:
    """Remove the images with these names; the classes stay, and a split without images is dropped."""
    splits = {
        role: split.take(np.flatnonzero([name not in names for name in split.names]))
        for role, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits={role: split for role, split in splits.items() if len(split)})
