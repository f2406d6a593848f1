"""What a network sees of an image."""

import numpy as np
import pytest

from jaxcnn.preprocessing import Preprocessing, preprocess


def test_bytes_become_floats_in_the_unit_range():
    images = preprocess(np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1), Preprocessing())
    assert images.dtype == np.float32
    np.testing.assert_allclose(images.ravel(), [0.0, 0.2, 1.0], rtol=1e-6)


def test_then_they_are_normalised():
    images = np.random.default_rng(0).integers(0, 200, (3, 9, 8, 1), np.uint8)
    normalised = preprocess(images, Preprocessing(normalization="per-image-z-score"))
    for image in np.asarray(normalised):
        assert image.mean() == pytest.approx(0, abs=1e-5)
        assert image.std() == pytest.approx(1, abs=1e-2)
