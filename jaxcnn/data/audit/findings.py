"""Find what makes scores on a data set unreliable: copies, copies across the split, conflicting labels."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from jaxcnn.data.audit.collection import Collection
from jaxcnn.data.duplicates import closest, duplicate_groups, members


@dataclasses.dataclass(frozen=True)
class CrossingPair:
    """Two images (their places in the collection) of different splits, and their correlation."""

    first: int
    second: int
    correlation: float


@dataclasses.dataclass(frozen=True)
class Audit:
    """The findings of an audit.

    Attributes:
        collection: where it was looked for.
        threshold: correlation above which two images are near-duplicates.
        identical: groups of identical files (or pixels): for each image the place of the first one of its group.
        groups: the same for near-duplicates; identical images are always in one group.
        pairs: each image that has near-duplicates in another split with the most similar one, the least similar pair
            first.
    """

    collection: Collection
    threshold: float
    identical: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    pairs: tuple[CrossingPair, ...]


@dataclasses.dataclass(frozen=True)
class GroupCounts:
    """Groups of two or more images.

    Attributes:
        groups: their number.
        images: their members.
        redundant: members but for one of each group.
        crossing: groups with members in more than one split.
        conflicting: groups whose members have more than one label.
    """

    groups: int
    images: int
    redundant: int
    crossing: int
    conflicting: int


def find_duplicates(collection: Collection, threshold: float) -> Audit:
    """Find identical images and near-duplicates.

    Raises:
        ValueError: the threshold is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be above 0 and below 1, got {threshold}")
    _, first, digest_of = np.unique(collection.digests, return_index=True, return_inverse=True)
    groups = duplicate_groups(collection.thumbnails, threshold)
    return Audit(collection, threshold, first[digest_of], groups, _crossing_pairs(collection, groups))


def crossing_images(collection: Collection, groups: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Tell for each image whether its group has members in more than one split."""
    crosses = np.zeros(len(groups), bool)
    for group in members(groups):
        crosses[group] = differ(collection.splits, group)
    return crosses


def crossing_patients(collection: Collection) -> list[str]:
    """List the known patients who have images in more than one split, sorted."""
    splits_of: dict[str, set[str]] = {}
    for patient, split in zip(collection.patients, collection.splits, strict=True):
        splits_of.setdefault(patient, set()).add(split)
    return sorted(patient for patient, splits in splits_of.items() if patient and len(splits) > 1)


def differ(values: tuple[str, ...], group: Int[np.ndarray, " members"]) -> bool:
    """Whether the members of a group have different labels (or splits)."""
    return len({values[i] for i in group}) > 1


def _crossing_pairs(collection: Collection, groups: Int[np.ndarray, " n"]) -> tuple[CrossingPair, ...]:
    splits = np.array(collection.splits)
    crosses = crossing_images(collection, groups)
    correlation_of: dict[tuple[int, int], float] = {}
    for split in np.unique(splits[crosses]):
        here, elsewhere = (np.flatnonzero(crosses & side) for side in (splits == split, splits != split))
        place, correlation = closest(collection.thumbnails[here], collection.thumbnails[elsewhere])
        for a, b, value in zip(here.tolist(), elsewhere[place].tolist(), correlation.tolist(), strict=True):
            correlation_of[min(a, b), max(a, b)] = value  # Once, where each is the closest of the other.
    least_first = sorted(correlation_of.items(), key=lambda item: (item[1], item[0]))
    return tuple(CrossingPair(a, b, value) for (a, b), value in least_first)


def count_groups(collection: Collection, groups: Int[np.ndarray, " n"]) -> GroupCounts:
    """Count the groups of two or more images."""
    larger = members(groups)
    images = sum(map(len, larger))
    return GroupCounts(
        groups=len(larger),
        images=images,
        redundant=images - len(larger),
        crossing=sum(differ(collection.splits, group) for group in larger),
        conflicting=sum(differ(collection.labels, group) for group in larger),
    )
