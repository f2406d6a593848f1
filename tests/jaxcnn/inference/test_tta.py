"""Test-time augmentation: the mean of probabilities, as logits, and maps that lie over one another."""

import inspect
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jaxcnn.inference.tta import VIEWS, TTAName, average_probabilities, join_maps, views_of


def test_the_views_are_the_image_and_its_mirror_image():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    assert views_of(images, "none") == (images,)
    for of in (images, jnp.asarray(images)):
        plain, mirrored = views_of(of, "flip")
        np.testing.assert_array_equal(plain, images)
        np.testing.assert_array_equal(mirrored, np.flip(images, 2))


def test_every_name_has_its_views_and_another_has_none():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    assert set(VIEWS) == set(get_args(TTAName))
    with pytest.raises(KeyError):
        # Without the check of types that tests have and users don't.
        inspect.unwrap(views_of)(images, "rotate")


def test_the_softmax_of_the_averaged_logits_is_the_mean_of_the_views_probabilities():
    """However certain a view is: far logits would be 0 and infinity as probabilities and their logarithm."""
    logits = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32) * [
        [[1]],
        [[1]],
        [[10]],
        [[100]],
        [[1e4]],
    ]
    logits = logits.astype(np.float32)
    averaged = average_probabilities(jnp.asarray(logits.reshape(10, 4)), 2)
    assert np.isfinite(averaged).all()
    expected = softmax(logits.astype(np.float64), axis=-1).mean(axis=1)
    np.testing.assert_allclose(jax.nn.softmax(averaged), expected, rtol=1e-4, atol=1e-7)
    # The probabilities are those logits' own exponentials, too.
    np.testing.assert_allclose(np.exp(averaged), expected, rtol=1e-4, atol=1e-7)


def test_the_logits_of_one_view_stay_as_they_are():
    logits = jnp.ones((3, 4))
    assert average_probabilities(logits, 1) is logits


def test_a_map_of_the_mirror_image_is_mirrored_back():
    maps = np.zeros((2, 2, 3, 4), np.float32)
    maps[0, 0, 1, 0] = maps[1, 0, 1, 3] = 1.0  # of the same place, seen from both sides
    maps[1, 0, 2, 3] = 0.5
    joined = join_maps(tuple(jnp.asarray(maps)))
    expected = np.zeros((2, 3, 4))
    expected[0, 1, 0], expected[0, 2, 0] = 1.0, 0.25
    np.testing.assert_array_equal(joined, expected)
