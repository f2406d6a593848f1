"""Normalised images are the same whatever a scanner's scale and offset, and a blank image stays finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.normalization import NORMALIZATIONS, foreground_z_score, per_image_z_score, percentile


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


def heads(count=3, size=32, channels=2):
    """Textured discs on black, brighter in one channel and image than in another."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : 1j * size, -1 : 1 : 1j * size]
    disc = ((x**2 + y**2) < 0.5)[..., None]
    images = disc * random.uniform(0.2, 0.7, (count, 1, 1, channels)) * random.uniform(0.7, 1.2, (size, size, channels))
    return jnp.asarray(images, jnp.float32)


def test_the_head_has_mean_0_and_deviation_1():
    images = heads()
    normalized = np.asarray(foreground_z_score(images))
    for image, result in zip(np.asarray(images), normalized, strict=True):
        for channel in range(2):
            head = result[..., channel][image[..., channel] > 0]
            assert head.mean() == pytest.approx(0, abs=1e-5)
            assert head.std() == pytest.approx(1, abs=1e-5)


def test_black_around_a_head_does_not_change_the_head():
    images = heads()
    wider = jnp.pad(images, ((0, 0), (9, 9), (9, 9), (0, 0)))
    np.testing.assert_allclose(foreground_z_score(wider)[:, 9:-9, 9:-9], foreground_z_score(images), atol=1e-5)
    # What this is for: with statistics of the whole image, it does.
    assert not np.allclose(per_image_z_score(wider)[:, 9:-9, 9:-9], per_image_z_score(images), atol=0.1)


def test_percentiles_are_numpys_and_a_hot_pixel_does_not_matter():
    images = np.array(heads())
    low, high = np.percentile(images, [1, 99], axis=(1, 2), keepdims=True)
    expected = np.clip((images - low) / (high - low), 0, 1)
    np.testing.assert_allclose(percentile(jnp.asarray(images)), expected, atol=1e-5)
    images[:, 16, 16] *= 100
    others = np.delete(np.asarray(percentile(jnp.asarray(images))), 16, axis=1)
    np.testing.assert_allclose(others, np.delete(expected, 16, axis=1), atol=0.02)


@pytest.mark.parametrize("name", ["per-image-z-score", "foreground-z-score", "percentile"])
def test_a_scanners_scale_and_offset_disappear(name):
    normalize, images = NORMALIZATIONS[name], heads()
    # The z-score of the whole image adds 1e-3 to the deviation, so it is the same only about.
    tolerance = 0.05 if name == "per-image-z-score" else 1e-4
    for scale, offset in [(0.5, 0.0), (1.0, 0.1), (0.3, 0.4), (1.2, 0.02)]:
        np.testing.assert_allclose(normalize(offset + scale * images), normalize(images), atol=tolerance)


# ImageNet's, and what is stored of a volume, are the same for every image, whatever its contrast.
@pytest.mark.parametrize("name", sorted(NORMALIZATIONS.keys() - {"imagenet", "volume-z-score"}))
@pytest.mark.parametrize("grey", [0.0, 0.1, 0.7, 1.0])
def test_a_blank_image_stays_finite_and_blank(name, grey):
    blank = np.asarray(NORMALIZATIONS[name](jnp.full((1, 50, 37, 1), grey)))
    assert np.isfinite(blank).all()
    assert np.ptp(blank) == 0
    assert np.abs(blank).max() <= 1


def test_a_head_of_one_grey_level_is_not_blown_up():
    disc = jnp.where(heads() > 0, 0.5, 0.0)
    assert np.abs(foreground_z_score(disc)).max() < 30


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_shape_and_type_stay(name):
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 8, 3)), jnp.float32)
    normalized = NORMALIZATIONS[name](images)
    assert (normalized.shape, normalized.dtype) == (images.shape, images.dtype)
    if name == "none":
        np.testing.assert_array_equal(normalized, images)
