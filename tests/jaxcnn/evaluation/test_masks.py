"""Scores of masks are those of scikit-learn over their pixels, and distances those of SciPy between all pairs."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from jaxcnn.evaluation.masks import by_patient, count_pixels, hausdorff95, overlaps

RANDOM = np.random.default_rng(0)
TRUE, PREDICTED = (RANDOM.choice(3, (5, 16, 8), p=(0.6, 0.3, 0.1)).astype(np.uint8) for _ in range(2))
PATIENTS = ("b", "a", "b", "a", "b")


@pytest.mark.parametrize(
    ("name", "reference"),
    [("dice", f1_score), ("iou", jaccard_score), ("sensitivity", recall_score), ("precision", precision_score)],
)
def test_overlaps_are_scikit_learns_scores_of_the_pixels_of_a_slice_or_a_patient(name, reference):
    counts = count_pixels(TRUE, PREDICTED, 3)
    for found, places in [(counts[3], [3]), (by_patient(counts, PATIENTS)[0], [0, 2, 4])]:
        true, predicted = TRUE[places].ravel(), PREDICTED[places].ravel()
        expected = reference(true, predicted, average=None, labels=[1, 2])
        np.testing.assert_allclose(overlaps(found)[name], expected)


def test_nothing_found_where_nothing_is_counts_as_right_and_anything_else_as_wrong():
    empty, full = np.zeros((1, 4, 4), np.uint8), np.ones((1, 4, 4), np.uint8)
    for true, predicted, dice, sensitivity, precision in [
        (empty, empty, 1, np.nan, np.nan),
        (empty, full, 0, np.nan, 0),
        (full, empty, 0, 0, np.nan),
        (full, full, 1, 1, 1),
    ]:
        found = {name: of[0, 0] for name, of in overlaps(count_pixels(true, predicted, 2)).items()}
        np.testing.assert_equal(found, {"dice": dice, "iou": dice, "sensitivity": sensitivity, "precision": precision})


def test_the_distance_is_that_of_all_pairs_of_outline_pixels():
    first, second = (np.zeros((32, 40), bool) for _ in range(2))
    first[5:20, 8:30], second[9:28, 4:22], second[30, 39] = True, True, True
    outlines = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (first, second)]
    pairs = cdist(*outlines)
    expected = np.percentile(np.concatenate([pairs.min(axis=0), pairs.min(axis=1)]), 95)
    assert hausdorff95(first, second) == pytest.approx(expected)
    assert hausdorff95(first, first) == 0
    assert np.isnan(hausdorff95(first, np.zeros_like(first)))
