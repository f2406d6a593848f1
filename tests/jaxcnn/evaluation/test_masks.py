"""Scores of masks are those of scikit-learn over their pixels, and distances those of SciPy between all pairs."""

import csv
import json

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from scipy.stats import bootstrap
from scored_runs import DATA, ENVIRONMENT
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from jaxcnn.errors import UserError
from jaxcnn.evaluation.evaluate import evaluate
from jaxcnn.evaluation.masks import (
    MaskPredictions,
    by_patient,
    count_pixels,
    dice,
    hausdorff95,
    keep_largest_component,
    overlaps,
)
from jaxcnn.evaluation.patients import SUMMARISED, score_patients, summarise_patients
from jaxcnn.runs.folder import create_run, write_predictions

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
    for true, predicted, overlap, sensitivity, precision in [
        (empty, empty, 1, np.nan, np.nan),
        (empty, full, 0, np.nan, 0),
        (full, empty, 0, 0, np.nan),
        (full, full, 1, 1, 1),
    ]:
        found = {name: of[0, 0] for name, of in overlaps(count_pixels(true, predicted, 2)).items()}
        np.testing.assert_equal(
            found, {"dice": overlap, "iou": overlap, "sensitivity": sensitivity, "precision": precision}
        )


def test_the_distance_is_that_of_all_pairs_of_outline_pixels():
    first, second = (np.zeros((32, 40), bool) for _ in range(2))
    first[5:20, 8:30], second[9:28, 4:22], second[30, 39] = True, True, True
    outlines = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (first, second)]
    pairs = cdist(*outlines)
    expected = np.percentile(np.concatenate([pairs.min(axis=0), pairs.min(axis=1)]), 95)
    assert hausdorff95(first, second) == pytest.approx(expected)
    assert hausdorff95(first, first) == 0
    assert np.isnan(hausdorff95(first, np.zeros_like(first)))


def test_of_each_class_the_largest_component_stays():
    masks = np.zeros((4, 8, 8), np.uint8)
    masks[0, :2, :2], masks[1:3, 4:7, 4:7], masks[3, 0, 0], masks[3, 5:, :2] = 1, 1, 2, 2
    expected = masks.copy()
    expected[0, :2, :2], expected[3, 0, 0] = 0, 0
    np.testing.assert_array_equal(keep_largest_component(masks), expected)


MASKS = MaskPredictions(
    PREDICTED, TRUE, PATIENTS, tuple(f"{patient}/{n}" for n, patient in enumerate(PATIENTS)), ("background", "1", "2")
)


def test_patients_are_scored_over_their_slices_and_summarised_over_each_other():
    found = score_patients(MASKS)
    dice = overlaps(by_patient(MASKS.confusions(), PATIENTS))["dice"].mean(axis=1)
    np.testing.assert_allclose(found["dice"], dice)
    np.testing.assert_array_equal(found["slices"], [3, 2])
    of_slices = overlaps(MASKS.confusions())["dice"].mean(axis=1)
    np.testing.assert_allclose(found["slice_dice"], [of_slices[[0, 2, 4]].mean(), of_slices[[1, 3]].mean()])
    assert MASKS.scores()["patient_dice"] == pytest.approx(dice.mean())
    summary = summarise_patients(found)
    value, low, high = summary["dice"]
    assert value == pytest.approx(dice.mean())
    # Of two patients a resample holds one twice, or both.
    assert (low, high) == (pytest.approx(dice.min()), pytest.approx(dice.max()))
    assert summary["median_dice"][0] == pytest.approx(np.median(dice))
    assert summary["slice_dice"][0] == pytest.approx(of_slices.mean())


def test_the_interval_is_scipys_bootstrap_of_patients():
    dice = RANDOM.uniform(size=40)
    found = summarise_patients(dict.fromkeys([*SUMMARISED, "slices"], dice), 9999)["dice"]
    expected = bootstrap((dice,), np.mean, method="percentile", n_resamples=9999, rng=0).confidence_interval
    np.testing.assert_allclose(found[1:], expected, atol=0.005)


def test_evaluate_tells_the_same_in_a_table_in_json_and_in_csv(tmp_path, capsys):
    run = create_run(tmp_path / "run", {"model": "segmentation"}, DATA, ENVIRONMENT, overwrite=False)
    write_predictions(run, "test", MASKS)
    evaluate((run.folder,), csv_file=tmp_path / "patients.csv")
    value = score_patients(MASKS)["dice"]
    shown = capsys.readouterr().out
    assert all(f"{of:.3f}" in shown for of in [*value, value.mean()])
    evaluate((run.folder,), machine_readable=True)
    (document,) = json.loads(capsys.readouterr().out)["runs"]
    assert document["measures"]["dice"]["value"] == pytest.approx(value.mean())
    assert document["patients"]["a"]["dice"] == pytest.approx(value[1])
    with (tmp_path / "patients.csv").open() as file:
        assert [float(line["dice"]) for line in csv.DictReader(file)] == pytest.approx(value.tolist())
    with pytest.raises(UserError, match="--unseen: works only on runs that classify"):
        evaluate((run.folder,), unseen=True)


def test_evaluate_can_keep_the_largest_component_of_each_patient_alone(tmp_path, capsys):
    """In a patient's own stack: its slices are not those that lie beside them in the split."""
    run = create_run(tmp_path / "run", {"model": "segmentation"}, DATA, ENVIRONMENT, overwrite=False)
    write_predictions(run, "test", MASKS)
    evaluate((run.folder,), largest_component=True, machine_readable=True)
    (document,) = json.loads(capsys.readouterr().out)["runs"]
    for patient, places in (("b", [0, 2, 4]), ("a", [1, 3])):
        kept = keep_largest_component(PREDICTED[places])
        scores = [f1_score(TRUE[places].ravel() == label, kept.ravel() == label) for label in (1, 2)]
        assert document["patients"][patient]["dice"] == pytest.approx(np.mean(scores))
    classifier = create_run(tmp_path / "classifier", {"model": "simplecnn"}, DATA, ENVIRONMENT, overwrite=False)
    with pytest.raises(UserError, match="--largest-component: works only on runs that segment"):
        evaluate((classifier.folder,), largest_component=True)


def test_dice_is_the_f1_score_of_the_pixels():
    predicted, true = RANDOM.uniform(size=(2, 3, 8, 8)) < np.array([0.3, 0.5])[:, None, None, None]
    assert dice(predicted, true) == pytest.approx(f1_score(true.ravel(), predicted.ravel()))


def test_dice_of_masks_that_agree_and_that_have_nothing_in_common():
    mask = np.eye(5, dtype=bool)
    assert dice(mask, mask) == 1
    assert dice(mask, ~mask) == 0
    assert dice(mask, np.zeros_like(mask)) == 0
    assert dice(np.zeros_like(mask), np.zeros_like(mask)) == 1
