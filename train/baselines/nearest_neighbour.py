"""Predict the label of the most similar training image: the score of memory alone."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from jaxcnn.data.dataset import Split
from jaxcnn.data.duplicates import correlations, make_thumbnails

# Images compared with all others at a time.
_BLOCK = 512


def nearest_neighbour(splits: Mapping[str, Split], classes: int) -> dict[str, Float32[np.ndarray, "_ classes"]]:
    """Compute for every image and class the highest normalised cross-correlation with another image of that class.

    So the largest logit is that of the most similar image's class. The correlation is that of the 64x64 thumbnails
    (`jaxcnn.data.duplicates`). Nothing is chosen by the validation images, so test images are compared with these, too:
    with all that the protocol leaves of Training. Validation images are compared with the training images, and those
    with one another: no image is compared with itself, but its copies are.
    """
    thumbnails = {name: make_thumbnails(split.images) for name, split in splits.items()}
    labels = {name: split.labels for name, split in splits.items()}
    all_thumbnails, all_labels = (
        np.concatenate([by_name["train"], by_name["validation"]]) for by_name in (thumbnails, labels)
    )
    logits = {
        "train": _of_classes(thumbnails["train"], thumbnails["train"], labels["train"], classes, leave_out_self=True),
        "validation": _of_classes(thumbnails["validation"], thumbnails["train"], labels["train"], classes),
        "test": _of_classes(thumbnails["test"], all_thumbnails, all_labels, classes),
    }
    return {name: values.astype(np.float32) for name, values in logits.items()}


def _of_classes(
    queries: UInt8[np.ndarray, "queries 64 64 1"],
    candidates: UInt8[np.ndarray, "candidates 64 64 1"],
    labels: Int32[np.ndarray, " candidates"],
    classes: int,
    *,
    leave_out_self: bool = False,
) -> Float64[np.ndarray, "queries classes"]:
    """The highest correlation with a candidate of each class; -1, the lowest there is, where there is no candidate."""
    highest = np.full((len(queries), classes), -1.0)
    for top in range(0, len(queries), _BLOCK):
        found = correlations(queries[top : top + _BLOCK], candidates)
        rows = np.arange(len(found))
        if leave_out_self:
            found[rows, top + rows] = -1
        for label in range(classes):
            highest[top + rows, label] = found[:, labels == label].max(axis=1, initial=-1)
    return highest
