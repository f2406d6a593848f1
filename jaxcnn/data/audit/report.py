"""Format an audit as a table and as audit.json."""

import collections
import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxcnn.data.audit.collection import Collection
from jaxcnn.data.audit.findings import Audit, count_groups, crossing_images, crossing_patients, differ
from jaxcnn.data.duplicates import SIDE, Groups, members
from jaxcnn.data.labelled import natural_order
from jaxcnn.tables import fit_table, format_table

_NAMES = 5  # Of patients that are shown.


def audit_table(found: Audit) -> str:
    """Format the images of each class and split, those copied in another split, their usual size, and the groups."""
    parts = [_image_table(found), _group_table(found)]
    if known := _known_patients(found.collection):
        crossing = crossing_patients(found.collection)
        shown = f": {', '.join(crossing[:_NAMES])}{' and others' if len(crossing) > _NAMES else ''}" if crossing else ""
        parts.append(f"patients: {known} are known, {len(crossing)} have images in several splits{shown}")
    return "\n\n".join(parts)


def _known_patients(collection: Collection) -> int:
    return len(set(collection.patients) - {""})


def audit_document(found: Audit) -> dict[str, Any]:
    """Return parameters, counts, groups with their members, and the most similar pairs across the splits.

    The counts of images are by split and class. A group that crosses the splits is in `crossing_images` with all its
    members; `direct_twins` counts those that are above the threshold with an image of another split themselves, not
    only by way of others. `usual_size` counts those of the most frequent width and height: where that differs from
    class to class, a network may learn where a scan comes from instead of what it shows.
    """
    collection = found.collection
    return {
        "source": collection.source,
        "parameters": {"threshold": found.threshold, "side": SIDE},
        "images": _count(found, np.ones(len(collection.names), bool)),
        "crossing_images": _count(found, crossing_images(collection, found.groups)),
        "direct_twins": _count(found, _direct_twins(found)),
        "usual_size": {"pixels": _usual_size(found), "images": _count(found, _of_usual_size(found))},
        "identical": {"compared": collection.digests_of, **_describe_groups(collection, found.identical)},
        "near_duplicates": _describe_groups(collection, found.groups),
        "crossing_pairs": [
            {
                "images": [collection.names[pair.first], collection.names[pair.second]],
                "correlation": pair.correlation,
                "labels_conflict": collection.labels[pair.first] != collection.labels[pair.second],
            }
            for pair in found.pairs
        ],
        "patients": {"known": _known_patients(collection), "crossing": crossing_patients(collection)},
        "broken": {file.name: file.reason for file in collection.broken},
        "left_out": [file.name for file in collection.left_out],
    }


def _direct_twins(found: Audit) -> Bool[np.ndarray, " n"]:
    direct = np.zeros(len(found.groups), bool)
    for pair in found.pairs:
        direct[[pair.first, pair.second]] |= pair.correlation > found.threshold
    return direct


def _usual_size(found: Audit) -> tuple[int, int]:
    """Width and height of most images."""
    return collections.Counter(found.collection.sizes).most_common(1)[0][0]


def _of_usual_size(found: Audit) -> Bool[np.ndarray, " n"]:
    usual = _usual_size(found)
    return np.array([size == usual for size in found.collection.sizes])


def _describe_groups(collection: Collection, groups: Groups) -> dict[str, Any]:
    described = [
        {
            "crosses_splits": differ(collection.splits, group),
            "labels_conflict": differ(collection.labels, group),
            "images": [
                {"name": collection.names[i], "split": collection.splits[i], "label": collection.labels[i]}
                for i in group
            ],
        }
        for group in members(groups)
    ]
    return {**dataclasses.asdict(count_groups(collection, groups)), "members": described}


def _count(found: Audit, chosen: Bool[np.ndarray, " n"]) -> dict[str, dict[str, int]]:
    """The chosen images by split (the largest first) and class; every split has every class."""
    collection = found.collection
    splits = [split for split, _ in collections.Counter(collection.splits).most_common()]
    counts = {split: dict.fromkeys(sorted(set(collection.labels), key=natural_order), 0) for split in splits}
    for i in np.flatnonzero(chosen):
        counts[collection.splits[i]][collection.labels[i]] += 1
    return counts


def _image_table(found: Audit) -> str:
    images = _count(found, np.ones(len(found.groups), bool))
    twins = _count(found, crossing_images(found.collection, found.groups))
    usual, (width, height) = _count(found, _of_usual_size(found)), _usual_size(found)
    rows: list[tuple[str, ...]] = [("images", *next(iter(images.values())), "total", "")]
    for split in images:
        rows.append(_row(split, images[split], ""))
        if len(images) > 1:
            rows.append(_share_row("  copied in another split", twins[split], images[split]))
        if len(set(found.collection.sizes)) > 1:
            rows.append(_share_row(f"  of {width}x{height} pixels", usual[split], images[split]))
    return fit_table(rows)


def _share_row(head: str, some: dict[str, int], every: dict[str, int]) -> tuple[str, ...]:
    return _row(head, some, f"{sum(some.values()) / sum(every.values()):.0%}")


def _row(head: str, counts: dict[str, int], last: str) -> tuple[str, ...]:
    return (head, *map(str, counts.values()), str(sum(counts.values())), last)


def _group_table(found: Audit) -> str:
    collection = found.collection
    identical, near = (count_groups(collection, groups) for groups in (found.identical, found.groups))
    return format_table(
        [
            ("groups of", "groups", "images", "redundant", "across splits", "of several labels"),
            (f"identical {collection.digests_of}", *map(str, dataclasses.astuple(identical))),
            ("near-duplicates", *map(str, dataclasses.astuple(near))),
        ]
    )
