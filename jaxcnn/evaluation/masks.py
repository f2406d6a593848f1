"""Compare predicted masks with true ones: Dice, IoU, sensitivity and precision by slice and by patient, and distances.

Each class but the background is compared by itself. Where neither mask holds any of it Dice and IoU are 1: to find no
tumour where there is none is right. Where only one of them does they are 0. Sensitivity is undefined where there is
none of the class, precision where none is predicted, and the distance of the outlines where either holds. What is
undefined is NaN, and means leave it out.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped, UInt8
from scipy import ndimage

from jaxcnn.data.dataset import Split

MEASURES = ("dice", "iou", "sensitivity", "precision")


@dataclasses.dataclass(frozen=True)
class MaskPredictions:
    """The masks that a network predicts for the images of a split, in the split's order.

    Attributes:
        predicted: the class of each pixel, at the size that the network sees.
        true: the same of the true masks.
        patients: the patient of each image; where that isn't known the name of the image stands for one.
        classes: names, the background first.
    """

    predicted: UInt8[np.ndarray, "n height width"]
    true: UInt8[np.ndarray, "n height width"]
    patients: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def patient_names(self) -> tuple[str, ...]:
        """Each patient once."""
        return tuple(dict.fromkeys(self.patients))

    def largest_components(self) -> "MaskPredictions":
        """The same, with only the largest connected component of each class that is predicted in a patient's stack."""
        kept, patients = self.predicted.copy(), np.array(self.patients)
        for name in self.patient_names:
            kept[patients == name] = keep_largest_component(self.predicted[patients == name])
        return dataclasses.replace(self, predicted=kept)

    def confusions(self) -> Int[np.ndarray, "n classes classes"]:
        """Count the pixels of each image; see `count_pixels`."""
        return count_pixels(self.true, self.predicted, len(self.classes))

    def scores(self) -> dict[str, float]:
        """Dice of all pixels together, and the mean of the patients' Dice over their slices; means over the classes."""
        counts = by_patient(self.confusions(), self.patients)
        found = {"dice": overlaps(counts.sum(axis=0)), "patient_dice": overlaps(counts)}
        return {name: float(scores["dice"].mean()) for name, scores in found.items()}


def patients_of(split: Split) -> tuple[str, ...]:
    """The patient of each image; where that isn't known the name of the image stands for one."""
    return tuple(patient or name for patient, name in zip(split.patients or split.names, split.names, strict=True))


def count_pixels(
    true: Shaped[np.ndarray, " n *space"], predicted: Shaped[np.ndarray, " n *space"], classes: int
) -> Int[np.ndarray, "n classes classes"]:
    """Count the pixels of each image with each true class (row) and predicted class (column)."""
    cells = true.astype(np.int64) * classes + predicted
    counts = [np.bincount(own.ravel(), minlength=classes**2) for own in cells]
    return np.array(counts, np.int64).reshape(-1, classes, classes)


def by_patient(
    confusions: Int[np.ndarray, "n classes classes"], patients: Sequence[str]
) -> Int[np.ndarray, "patients classes classes"]:
    """Add up the pixels of each patient's slices; patients are in the order of their first slice."""
    place_of = {name: place for place, name in enumerate(dict.fromkeys(patients))}
    added = np.zeros((len(place_of), *confusions.shape[1:]), confusions.dtype)
    np.add.at(added, [place_of[name] for name in patients], confusions)
    return added


def overlaps(confusions: Int[np.ndarray, "*of classes classes"]) -> dict[str, Float64[np.ndarray, "*of masks"]]:
    """Compute the `MEASURES` of each class but the background, by the pixels that were counted."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)[..., 1:].astype(np.float64)
    true, predicted = (confusions.sum(axis=axis)[..., 1:] for axis in (-1, -2))

    def divide(part: np.ndarray, whole: np.ndarray, otherwise: float) -> Float64[np.ndarray, "*of masks"]:
        return np.divide(part, whole, out=np.full(part.shape, otherwise), where=whole > 0)

    return {
        "dice": divide(2 * hits, true + predicted, 1.0),
        "iou": divide(hits, true + predicted - hits, 1.0),
        "sensitivity": divide(hits, true, np.nan),
        "precision": divide(hits, predicted, np.nan),
    }


def dice(predicted: Bool[np.ndarray, "*space"], true: Bool[np.ndarray, "*space"]) -> float:
    """The Dice coefficient of two masks over all pixels; it is 1 if both are empty."""
    return float(overlaps(count_pixels(true[None], predicted[None], classes=2))["dice"].item())


def keep_largest_component(masks: UInt8[np.ndarray, "n height width"]) -> UInt8[np.ndarray, "n height width"]:
    """Keep of each class its largest connected component in the stack; voxels are connected through their faces."""
    kept = np.zeros_like(masks)
    for label in range(1, int(masks.max(initial=0)) + 1):
        components, count = ndimage.label(masks == label)
        if count:
            kept[components == 1 + np.argmax(np.bincount(components.ravel())[1:])] = label
    return kept


def hausdorff95(predicted: Bool[np.ndarray, "*space"], true: Bool[np.ndarray, "*space"]) -> float:
    """The 95th percentile of the distances, in pixels, from the outline of each mask to the nearest of the other's.

    As MedPy's `hd95` takes it, over the distances of both directions. NaN where a mask is empty.
    """
    if not predicted.any() or not true.any():
        return np.nan
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, true)]
    distances = [
        ndimage.distance_transform_edt(~other)[outline] for outline, other in zip(outlines, outlines[::-1], strict=True)
    ]
    return float(np.percentile(np.concatenate(distances), 95))
