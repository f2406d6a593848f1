"""The corners of the ROC curve are scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve as reference

from jaxcnn.evaluation.roc import roc_curve


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_corners_equal_scikit_learn_also_for_equal_scores(decimals):
    random = np.random.default_rng(decimals)
    positive = random.random(200) < 0.3
    scores = np.round(random.normal(size=200) + positive, decimals)
    found = roc_curve(scores, positive)
    false_positive_rate, true_positive_rate, _ = reference(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive_rate, false_positive_rate)
    np.testing.assert_allclose(found.true_positive_rate, true_positive_rate)


@pytest.mark.parametrize("positive", [True, False])
def test_one_kind_of_image_makes_no_curve(positive):
    with pytest.raises(ValueError, match="positives among 5 images"):
        roc_curve(np.arange(5.0), np.full(5, positive))
