"""Find the overlap of data sets: which images of each are copies of which images of the others."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from jaxcnn.data.audit.collection import Collection
from jaxcnn.data.class_names import agree
from jaxcnn.data.duplicates import SIDE, closest
from jaxcnn.tables import format_table


@dataclasses.dataclass(frozen=True)
class Overlap:
    """The images of one data set that are copies of images of another.

    Attributes:
        copied: whose images they are.
        within: where they have copies.
        places: of these images in `copied`.
        partners: the most similar image of each, by its place in `within`.
        correlations: of each with its partner.
    """

    copied: Collection
    within: Collection
    places: Int[np.ndarray, " copies"]
    partners: Int[np.ndarray, " copies"]
    correlations: Float64[np.ndarray, " copies"]

    @property
    def disagreements(self) -> list[tuple[int, int]]:
        """List the pairs whose labels contradict each other, by their places; see `jaxcnn.data.class_names`."""
        pairs = zip(self.places.tolist(), self.partners.tolist(), strict=True)
        return [(i, j) for i, j in pairs if not agree(self.copied.labels[i], self.within.labels[j])]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Data sets, and the overlap of each with every other."""

    collections: tuple[Collection, ...]
    threshold: float
    overlaps: tuple[Overlap, ...]


def compare(collections: Sequence[Collection], threshold: float) -> Comparison:
    """Find copies across data sets: pairs that correlate above the threshold, not chains of such pairs.

    Raises:
        ValueError: the threshold is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be above 0 and below 1, got {threshold}")
    found = []
    for copied, within in permutations(collections, 2):
        partners, correlations = closest(copied.thumbnails, within.thumbnails)
        places = np.flatnonzero(correlations > threshold)
        found.append(Overlap(copied, within, places, partners[places], correlations[places]))
    return Comparison(tuple(collections), threshold, tuple(found))


def comparison_table(found: Comparison) -> str:
    """Format the matrix of overlaps, then each overlap by split and class, and the labels that disagree."""
    letters = [chr(ord("A") + place) if place < 26 else f"#{place + 1}" for place in range(len(found.collections))]
    legend = "\n".join(
        f"{letter}  {collection.source}" for letter, collection in zip(letters, found.collections, strict=True)
    )
    # The overlaps are in the order of the matrix, whose diagonal they leave out.
    overlaps = iter(found.overlaps)
    rows = [("copies", *(f"in {letter}" for letter in letters), "images")]
    for letter, collection in zip(letters, found.collections, strict=True):
        cells = ["–" if other == letter else str(len(next(overlaps).places)) for other in letters]
        rows.append((f"of {letter}", *cells, str(len(collection.names))))
    pairs = zip(permutations(letters, 2), found.overlaps, strict=True)
    details = [_details(overlap, *pair) for pair, overlap in pairs if len(overlap.places)]
    return "\n\n".join([legend, format_table(rows), *details])


def _details(overlap: Overlap, mine: str, other: str) -> str:
    rows = [(f"{mine} in {other}", "images", "copied", "")]
    for (split, label), (count, copies) in _by_split_and_class(overlap).items():
        name = label if split == "all" else f"{split}/{label}"
        rows.append((name, str(count), str(copies), f"{copies / count:.0%}"))
    pairs = Counter((overlap.copied.labels[i], overlap.within.labels[j]) for i, j in overlap.disagreements)
    lines = [
        f"labels disagree: {count} images are {first} in {mine} and {second} in {other}"
        for (first, second), count in pairs.most_common()
    ]
    return "\n".join([format_table(rows), *lines])


def _by_split_and_class(overlap: Overlap) -> dict[tuple[str, str], tuple[int, int]]:
    """Images and copies of each class of each split."""
    keys = list(zip(overlap.copied.splits, overlap.copied.labels, strict=True))
    copies = Counter(keys[place] for place in overlap.places)
    return {key: (count, copies[key]) for key, count in sorted(Counter(keys).items())}


def comparison_document(found: Comparison) -> dict[str, Any]:
    """Return the content of the tables, and every pair by name."""
    return {
        "parameters": {"threshold": found.threshold, "side": SIDE},
        "data_sets": [
            {"source": collection.source, "images": len(collection.names)} for collection in found.collections
        ],
        "overlaps": [_describe(overlap) for overlap in found.overlaps],
    }


def _describe(overlap: Overlap) -> dict[str, Any]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (split, label), (count, copies) in _by_split_and_class(overlap).items():
        counts.setdefault(split, {})[label] = {"images": count, "copied": copies}
    return {
        "of": overlap.copied.source,
        "in": overlap.within.source,
        "images": len(overlap.copied.names),
        "copied": len(overlap.places),
        "by_split_and_class": counts,
        "disagreements": [
            {
                "images": [overlap.copied.names[i], overlap.within.names[j]],
                "labels": [overlap.copied.labels[i], overlap.within.labels[j]],
            }
            for i, j in overlap.disagreements
        ],
        "pairs": [
            {"images": [overlap.copied.names[i], overlap.within.names[j]], "correlation": correlation}
            for i, j, correlation in zip(
                overlap.places.tolist(), overlap.partners.tolist(), overlap.correlations.tolist(), strict=True
            )
        ],
    }
