"""Every measure equals scikit-learn's, for images that count once, several times or not at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from jaxcnn.evaluation.counts import Tally, confusion_matrix, scores
from jaxcnn.evaluation.measures import OVERALL, PER_CLASS, Measures, measures

CLASSES = 4


def random_predictions(seed, images, coarse=False):
    """Logits that know something of the labels; `coarse` ones have many equal values."""
    random = np.random.default_rng(seed)
    labels = np.resize(np.arange(CLASSES, dtype=np.int32), images)
    logits = random.normal(size=(images, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    return (np.round(logits) if coarse else logits).astype(np.float32), labels


def with_scikit_learn(logits, labels, weights):
    """The same by scikit-learn, for one row of weights."""
    # Not softmax itself: it rounds otherwise, and equal probabilities may differ then.
    p, predicted = np.exp(log_softmax(logits.astype(np.float64), axis=1)), logits.argmax(axis=1)
    options = {"sample_weight": weights}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(CLASSES), zero_division=np.nan, **options
    )
    return {
        "accuracy": sk.accuracy_score(labels, predicted, **options),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, **options),
        "f1_macro": sk.f1_score(labels, predicted, average="macro", **options),
        "f1_weighted": sk.f1_score(labels, predicted, average="weighted", **options),
        "auc_macro": sk.roc_auc_score(labels, p, multi_class="ovr", **options),
        "brier_score": sk.brier_score_loss(labels, p, labels=range(CLASSES), scale_by_half=False, **options),
        "log_loss": sk.log_loss(labels, p, labels=range(CLASSES), **options),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "auc": [sk.roc_auc_score(labels == c, p[:, c], **options) for c in range(CLASSES)],
    }


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(40, 120), coarse=st.booleans())
def test_weighted_measures_equal_scikit_learn(seed, images, coarse):
    logits, labels = random_predictions(seed, images, coarse)
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, images)).astype(np.float64)
    weights[:, :CLASSES] += 1  # every class is in every row
    found = measures(logits, labels, weights)
    for row, of_row in enumerate(weights):
        for name, value in with_scikit_learn(logits, labels, of_row).items():
            np.testing.assert_allclose(getattr(found, name)[row], value, rtol=1e-11, atol=1e-12, err_msg=name)


def test_a_weight_is_a_number_of_copies():
    logits, labels = random_predictions(1, 50)
    times = np.random.default_rng(1).integers(0, 4, 50)
    weighted = measures(logits, labels, times[np.newaxis].astype(np.float64))
    copied = measures(np.repeat(logits, times, axis=0), np.repeat(labels, times))
    for name in (*OVERALL, *PER_CLASS):
        np.testing.assert_allclose(getattr(weighted, name), getattr(copied, name), rtol=1e-12, err_msg=name)


def test_the_calibration_error_is_the_gap_of_the_reliability_diagram():
    logits, labels = random_predictions(2, 500)
    p = softmax(logits.astype(np.float64), axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=15)
    counts = np.histogram(confidence, bins=15, range=(0, 1))[0]
    expected = counts[counts > 0] @ np.abs(accuracy - mean_confidence) / 500
    assert measures(logits, labels).calibration_error[0] == pytest.approx(expected)


def test_the_scores_are_those_that_training_tells():
    # No image of the last class, which is given once, and none of the third, which never is.
    labels = np.array([0, 0, 1, 1, 1], np.int32)
    logits = np.eye(CLASSES, dtype=np.float32)[[0, 1, 1, 1, 3]]
    trained = scores(Tally(0.0, confusion_matrix(labels, logits.argmax(axis=1), CLASSES)))
    found = measures(logits, labels)
    assert found.accuracy[0] == trained.accuracy
    assert found.f1_macro[0] == pytest.approx(trained.f1_macro)
    assert found.f1_weighted[0] == pytest.approx(trained.f1_weighted)


def test_what_is_not_defined_is_nan_and_raises_no_warning():
    labels = np.array([0, 0, 1], np.int32)
    logits = np.eye(CLASSES, dtype=np.float32)[[0, 1, 1]]
    # The second row has no image of class 1, the third only one image.
    found = measures(logits, labels, np.array([[1.0, 1, 1], [1, 1, 0], [0, 0, 5]]))
    nan = np.nan
    np.testing.assert_array_equal(found.recall, [[0.5, 1, nan, nan], [0.5, nan, nan, nan], [nan, 1, nan, nan]])
    np.testing.assert_array_equal(found.precision, [[1, 0.5, nan, nan], [1, 0, nan, nan], [nan, 1, nan, nan]])
    assert np.isnan(found.auc).tolist() == [[False, False, True, True], [True] * 4, [True] * 4]
    # A mean is always over the same classes.
    assert np.isnan(found.balanced_accuracy).tolist() == [False, True, True]
    assert np.isnan(found.auc_macro).tolist() == [False, True, True]
    assert found.balanced_accuracy[0] == 0.75
    assert np.isfinite(found.accuracy).all()
    assert np.isfinite(found.f1_weighted).all()


def test_certain_and_right_is_perfect():
    labels = np.arange(8, dtype=np.int32) % CLASSES
    found = measures(1000 * np.eye(CLASSES, dtype=np.float32)[labels], labels)
    errors = {"calibration_error", "brier_score", "log_loss"}
    assert {name: getattr(found, name)[0] for name in OVERALL} == {name: float(name not in errors) for name in OVERALL}


def test_a_difference_is_taken_measure_by_measure():
    logits, labels = random_predictions(3, 60)
    other, _ = random_predictions(4, 60)
    difference = measures(logits, labels) - measures(other, labels)
    assert isinstance(difference, Measures)
    expected = measures(logits, labels).auc - measures(other, labels).auc
    np.testing.assert_array_equal(difference.auc, expected)
