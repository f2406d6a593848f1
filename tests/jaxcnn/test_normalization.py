"""Normalised images have mean 0 and deviation 1 in each channel of each image, and a black image stays finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.normalization import NORMALIZATIONS, per_image_z_score


def test_each_channel_of_each_image_by_itself():
    random = np.random.default_rng(0)
    scale = random.uniform(0.1, 1, (3, 1, 1, 2))
    images = jnp.asarray(scale * random.uniform(size=(3, 32, 32, 2)), jnp.float32)
    normalized = np.asarray(per_image_z_score(images))
    np.testing.assert_allclose(normalized.mean(axis=(1, 2)), 0, atol=1e-5)
    deviation = images.std(axis=(1, 2))
    np.testing.assert_allclose(normalized.std(axis=(1, 2)), deviation / (deviation + 1e-3), rtol=1e-4)
    for alone, together in zip(images, normalized, strict=True):
        np.testing.assert_allclose(per_image_z_score(alone[None])[0], together, rtol=1e-5, atol=1e-5)


def test_a_black_image_stays_black():
    np.testing.assert_array_equal(per_image_z_score(jnp.zeros((1, 16, 16, 3))), 0)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_shape_and_type_stay(name):
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 8, 3)), jnp.float32)
    normalized = NORMALIZATIONS[name](images)
    assert (normalized.shape, normalized.dtype) == (images.shape, images.dtype)
    if name == "none":
        np.testing.assert_array_equal(normalized, images)
