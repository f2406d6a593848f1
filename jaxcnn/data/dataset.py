"""A data set in memory: two splits of labelled grey images, from the phantom or from a prepared folder."""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int, Int32, UInt8

from jaxcnn.data.duplicates import duplicate_groups, make_thumbnails

# The folder names of the Kaggle archive, in the order of the labels 0 to 3.
CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")

SplitName = Literal["train", "test"]


@dataclasses.dataclass(frozen=True)
class Split:
    """Labelled images: 8-bit grey, as they lie on the disk; the models' input is these divided by 255."""

    images: UInt8[np.ndarray, "n height width 1"]
    labels: Int32[np.ndarray, " n"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def duplicates(self) -> Int[np.ndarray, " n"]:
        """The group of near-duplicates of each image; see `duplicate_groups`. Found once, which takes seconds."""
        return duplicate_groups(make_thumbnails(self.images))

    def take(self, chosen: Int[np.ndarray, " k"]) -> "Split":
        """The images at the places `chosen`."""
        return Split(self.images[chosen], self.labels[chosen], tuple(self.names[i] for i in chosen))

    def spread(self, count: int) -> "Split":
        """At most `count` of the images, evenly spread over the split, so that each class keeps its share."""
        if count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(int))

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels: two splits with the same fingerprint train the same model."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images in splits.

    Attributes:
        source: where they come from.
        classes: names, in the order of the labels.
        splits: train and test as they are published; train, validation and test once they are divided for a run.
    """

    source: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
