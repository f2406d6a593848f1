"""Choose the images for training, validation and testing: the official split or the leak-free one.

A test image with a near-duplicate in Training, or of a patient who is there, measures memory. `official` leaves such
training images where they are and is comparable with published scores; `leak-free` takes them out. Test images that a
data set comes with are never touched; where it has none, some are held out, or a fold of all images.

What is held out (for testing, or as validation images for early stopping, the best checkpoint and hyper-parameters)
is held out in whole groups: near-duplicates, and images of one patient. So no line that is drawn here cuts a group.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int, Shaped

from jaxcnn.data.dataset import SPLITS, Dataset, Split, joined
from jaxcnn.data.duplicates import THRESHOLD, Groups, image_groups
from jaxcnn.errors import UserError, importing

Protocol = Literal["leak-free", "official"]

Labels = Int[np.ndarray, " n"]
# By image: the split that it goes to, or LEFT_OUT.
Roles = Shaped[np.ndarray, " n"]
_LEFT_OUT = ""


@dataclasses.dataclass(frozen=True)
class Leakage:
    """Groups (near-duplicates, images of one patient) that lie on both sides of the split that a data set comes with.

    Attributes:
        groups: those with test images and others.
        train: the others in them: images for training or validation.
        test: the test images in them.
        copied: the names of these test images.
        patients: known patients with test images and others.
        validation: training images in a group with a validation image and none with a test image, where the data set
            comes with validation images.
    """

    groups: int = 0
    train: int = 0
    test: int = 0
    copied: tuple[str, ...] = ()
    patients: int = 0
    validation: int = 0


@dataclasses.dataclass(frozen=True)
class Fold:
    """One of `count` equal parts, by its number from 1 on."""

    number: int
    count: int


def partition(
    dataset: Dataset,
    protocol: Protocol,
    validation_fraction: float,
    *,
    seed: int,
    test_fraction: float = 0.2,
    fold: Fold | None = None,
) -> tuple[Dataset, Leakage]:
    """Divide a data set into train, validation and test.

    Under `leak-free` a training image goes if its group holds a test image, even if it is linked to that by way of
    other copies: then it is a copy of a copy. Where the data set comes with validation images, those go as well if
    they are in a group with a test image, and training images that are in a group with one of the rest.

    Args:
        dataset: as it is published: train, and perhaps validation and test.
        validation_fraction: share of the training images of each class to hold out for validation, unless the data set
            comes with validation images.
        seed: of the choice of what is held out.
        test_fraction: share of the training images of each class to hold out for testing, if the data set comes
            without test images.
        fold: test on this part of the training and validation images instead; the data set's own test images aren't
            used at all then.

    Returns:
        The data set with all three splits, and what crosses the split that it came with, under either protocol.

    Raises:
        ValueError: a class would have no image left to train on, or none to validate on, or there are no so many folds.
        UserError: the data set has no training images, or a package is missing.
    """
    if not len(dataset.splits.get("train", ())):
        raise UserError(
            f"{dataset.source}: has no training images; give a data set that has some, or one without splits"
        )
    splits = dataset.splits.values()
    labels = np.concatenate([split.labels for split in splits])
    patients = [patient for split in splits for patient in split.patients or ("",) * len(split)]
    segmented = any(split.masks is not None for split in splits)
    groups = image_groups([split.images for split in splits], patients, segmented=segmented)
    # As wide as the longest name, or assignments would be cut off.
    roles = np.repeat(list(dataset.splits), [len(split) for split in splits]).astype("U10")
    leakage = Leakage() if fold else _leakage(dataset, roles, groups, patients)
    if fold:
        roles[roles == "test"], roles[roles == "validation"] = _LEFT_OUT, "train"
    elif protocol == "leak-free":
        roles[(roles != "test") & _touches(groups, roles == "test")] = _LEFT_OUT
        roles[(roles == "train") & _touches(groups, roles == "validation")] = _LEFT_OUT
    usable = labels[roles == "train"]
    if fold:
        pool = np.flatnonzero(roles == "train")
        roles[pool[_in_fold(labels[pool], groups[pool], dataset.classes, fold, seed)]] = "test"
    elif "test" not in dataset.splits:
        # Nor may this line cut a group: what is in one with a validation image stays.
        pool = np.flatnonzero((roles == "train") & ~_touches(groups, roles == "validation"))
        roles[pool[_hold_some_out(labels[pool], groups[pool], test_fraction, seed)]] = "test"
    if "validation" not in roles:
        pool = np.flatnonzero(roles == "train")
        roles[pool[_hold_some_out(labels[pool], groups[pool], validation_fraction, seed)]] = "validation"
    _check_classes(dataset, usable, labels, roles)
    return dataclasses.replace(dataset, splits={role: _gather(dataset, roles, role) for role in SPLITS}), leakage


def _touches(groups: Groups, chosen: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether each image is in a group with one of the chosen."""
    return np.isin(groups, groups[chosen])


def _leakage(dataset: Dataset, roles: Roles, groups: Groups, patients: Sequence[str]) -> Leakage:
    tested = roles == "test"
    leaked, copied = ~tested & _touches(groups, tested), tested & _touches(groups, ~tested)
    names = [name for split in dataset.splits.values() for name in split.names]
    of_tested, of_others = (set(np.array(patients)[side].tolist()) for side in (tested, ~tested))
    return Leakage(
        groups=len(np.unique(groups[leaked])),
        train=int(leaked.sum()),
        test=int(copied.sum()),
        copied=tuple(names[i] for i in np.flatnonzero(copied)),
        patients=len((of_tested & of_others) - {""}),
        validation=int(((roles == "train") & ~leaked & _touches(groups, roles == "validation")).sum()),
    )


def _in_fold(labels: Labels, groups: Groups, classes: Sequence[str], fold: Fold, seed: int) -> Int[np.ndarray, " k"]:
    """Places of the images of a fold: whole groups, and of each class as equal a share as these allow."""
    with importing("scikit-learn", needed_by="folds", extra="baselines"):
        from sklearn.model_selection import StratifiedGroupKFold
    for label in np.unique(labels):
        if (count := len(np.unique(groups[labels == label]))) < fold.count:
            raise ValueError(
                f"the images of {classes[label]} form {count} groups (patients, copies), too few for {fold.count} folds"
            )
    folds = StratifiedGroupKFold(fold.count, shuffle=True, random_state=seed).split(labels, labels, groups)
    _, chosen = list(folds)[fold.number - 1]
    return chosen


def _hold_some_out(labels: Labels, groups: Groups, fraction: float, seed: int) -> Bool[np.ndarray, " n"]:
    """As `hold_out`, but every class that has several groups gives one of them, even where all exceed its share."""
    held_out = hold_out(labels, groups, fraction, seed=seed)
    for label in np.unique(labels):
        candidates = np.unique(groups[labels == label])
        if len(candidates) > 1 and not held_out[labels == label].any():
            sizes = [int((groups == group).sum()) for group in candidates]
            held_out |= groups == candidates[np.argmin(sizes)]
    return held_out


def hold_out(labels: Labels, groups: Groups, fraction: float, *, seed: int) -> Bool[np.ndarray, " n"]:
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


def _check_classes(dataset: Dataset, usable: Int[np.ndarray, " k"], labels: Labels, roles: Roles) -> None:
    """Refuse a class of Training of which no image is left to train on, or none is held out."""
    before = dataset.splits["train"].labels
    for label in np.unique(before):
        total, left = int((before == label).sum()), int((usable == label).sum())
        train, validation, test = (int((labels[roles == role] == label).sum()) for role in SPLITS)
        # A validation split that the data set comes with may lack a class.
        if not train or not (validation or "validation" in dataset.splits):
            copies = f" ({total - left} more are copies of test images)" if total > left else ""
            tested = "" if "test" in dataset.splits else f" and {test} to test on"
            raise ValueError(
                f"the {left} training images of {dataset.classes[label]}{copies}"
                f" leave {train} to train on and {validation} to validate on{tested}"
            )


def _gather(dataset: Dataset, roles: Roles, role: str) -> Split:
    """The images of a role, in their order."""
    starts = np.cumsum([len(split) for split in dataset.splits.values()])[:-1]
    chosen = [np.flatnonzero(part == role) for part in np.split(roles, starts)]
    parts = [
        # A split that stays as it is isn't copied.
        split if len(places) == len(split) else split.take(places)
        for split, places in zip(dataset.splits.values(), chosen, strict=True)
        if len(places)
    ]
    return parts[0] if len(parts) == 1 else joined(parts)


def describe(dataset: Dataset, leakage: Leakage, protocol: Protocol) -> dict[str, Any]:
    """Describe the divided data of a run for data.json: protocol, counts and fingerprints."""
    counts = {name: np.bincount(split.labels, minlength=len(dataset.classes)) for name, split in dataset.splits.items()}
    patients = {name: len(set(split.patients or ()) - {""}) for name, split in dataset.splits.items()}
    return {
        "source": dataset.source,
        "protocol": protocol,
        "duplicate_threshold": THRESHOLD,
        "crossing": dataclasses.asdict(leakage),
        "left_out": leakage.train + leakage.validation if protocol == "leak-free" else 0,
        "images": {name: dict(zip(dataset.classes, of.tolist(), strict=True)) for name, of in counts.items()},
        **({"patients": patients} if any(patients.values()) else {}),
        "fingerprints": {name: split.fingerprint() for name, split in dataset.splits.items()},
    }
