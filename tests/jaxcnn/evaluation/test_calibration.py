"""Reliability bins against scikit-learn's, and a temperature that is known beforehand."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from jaxcnn.evaluation.calibration import confidence_bin, fit_temperature, reliability


def calibrated(seed, images):
    """Logits whose softmax is the distribution that the labels are drawn from."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(images, 4))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < random.random((images, 1))).sum(axis=1)
    return logits, labels.astype(np.int32)


def test_bins_are_those_of_scikit_learn_and_count_every_image():
    logits, labels = calibrated(0, 800)
    found = reliability(logits, labels)
    p = softmax(logits, axis=1)
    accuracy, confidence = calibration_curve(p.argmax(axis=1) == labels, p.max(axis=1), n_bins=15)
    full = found.counts > 0
    assert found.counts.sum() == 800
    np.testing.assert_allclose(found.accuracy[full], accuracy)
    np.testing.assert_allclose(found.confidence[full], confidence)
    assert np.isnan(found.accuracy[~full]).all()
    assert not full.all()  # the most probable of four classes never has less than a quarter


def test_an_edge_belongs_to_the_bin_below_it():
    assert confidence_bin(np.array([0.0, 0.2, 0.20001, 0.4, 1.0]), bins=5).tolist() == [0, 0, 1, 1, 4]


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_finds_the_factor_that_spoilt_the_calibration(factor):
    logits, labels = calibrated(1, 20_000)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


def test_no_other_temperature_has_a_lower_log_loss():
    logits, labels = calibrated(2, 150)
    best = minimize_scalar(lambda t: log_loss(labels, softmax(logits / t, axis=1)), bounds=(0.1, 10), method="bounded")
    assert fit_temperature(logits, labels) == pytest.approx(best.x, rel=1e-4)


def test_where_no_temperature_is_best_it_says_so():
    labels = np.arange(12, dtype=np.int32) % 4
    with pytest.raises(ValueError, match="all images are classified correctly"):
        fit_temperature(np.eye(4)[labels], labels)
    with pytest.raises(ValueError, match="no better than chance"):
        fit_temperature(-np.eye(4)[labels], labels)
    with pytest.raises(ValueError, match="no better than chance"):
        fit_temperature(np.zeros((12, 4)), labels)
