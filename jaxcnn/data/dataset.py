"""A data set in memory: splits of labelled images, from the phantom, a prepared folder, or image files."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Int, Int32, Shaped, UInt8

from jaxcnn.data.duplicates import image_groups

SPLITS = ("train", "validation", "test")


def evenly_spread(items: Shaped[np.ndarray, " n"], count: int) -> Shaped[np.ndarray, " k"]:
    """Select at most `count` of the items, evenly spread, in their order."""
    return items[np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


@dataclasses.dataclass(frozen=True)
class Split:
    """Labelled images, 8-bit as stored on disk; the models' input is these divided by 255.

    Attributes:
        images: of one size, grey unless there are masks.
        labels: places in the data set's classes; of an image with a mask, the largest class in it.
        names: one an image, each once in the data set.
        patients: the patient of each image, "" where it isn't known; None where none is known.
        masks: the class of each pixel, if the data set is one to segment.
    """

    images: UInt8[np.ndarray, "n height width channel"]
    labels: Int32[np.ndarray, " n"]
    names: tuple[str, ...]
    patients: tuple[str, ...] | None = None
    masks: UInt8[np.ndarray, "n height width"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def groups(self) -> Int[np.ndarray, " n"]:
        """The group of each image, which must not be divided: near-duplicates, and images of one patient.

        As the place of the group's first member; see `image_groups`. Found once, which takes seconds.
        """
        return image_groups([self.images], self.patients, segmented=self.masks is not None)

    def take(self, chosen: Int[np.ndarray, " k"]) -> "Split":
        """Select the images at the places `chosen`."""
        names = tuple(self.names[i] for i in chosen)
        patients = None if self.patients is None else tuple(self.patients[i] for i in chosen)
        masks = None if self.masks is None else self.masks[chosen]
        return Split(self.images[chosen], self.labels[chosen], names, patients, masks)

    def spread(self, count: int) -> "Split":
        """Select at most `count` images, evenly spread over the split, so that each class keeps its share."""
        if count >= len(self):
            return self
        return self.take(evenly_spread(np.arange(len(self)), count))

    def fingerprint(self) -> str:
        """Hash pixels, labels and masks with SHA-256: two splits with the same fingerprint train the same model."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        if self.masks is not None:
            digest.update(np.ascontiguousarray(self.masks))
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images in splits.

    Attributes:
        source: where they come from.
        classes: names, in the order of the labels; of masks, the background first.
        splits: as the data set is published, some of train, validation and test; once it is parted for a run
            (`jaxcnn.data.protocol`) all three.
    """

    source: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]


def joined(parts: Sequence[Split]) -> Split:
    """Join several splits into one, in their order."""
    known = any(part.patients is not None for part in parts)
    patients = tuple(name for part in parts for name in part.patients or ("",) * len(part))
    return Split(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        patients=patients if known else None,
        masks=None if parts[0].masks is None else np.concatenate([part.masks for part in parts]),
    )
