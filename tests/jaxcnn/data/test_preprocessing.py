"""What a network sees of an image."""

import jax
import numpy as np
import pytest
from PIL import Image
from planted import smooth_images

from jaxcnn.data.phantom import phantom_images
from jaxcnn.data.preprocessing import Preprocessing, as_inputs, frame, preprocess


@pytest.fixture(scope="module")
def heads():
    return phantom_images(0, np.arange(2))[0]


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


def test_images_that_are_to_stay_are_not_touched(heads):
    assert frame(heads, Preprocessing()) is heads
    assert frame(heads, Preprocessing(image_size=128)) is heads


@pytest.mark.parametrize("size", [64, 96, 200])
def test_the_size_is_that_of_pillows_bilinear_filter(size):
    """It widens where it reduces, so that nothing between the pixels is lost."""
    images = smooth_images(3)
    framed = frame(images, Preprocessing(image_size=size))
    assert framed.dtype == np.uint8
    for image, other in zip(images, np.asarray(framed), strict=True):
        expected = Image.fromarray(image[..., 0]).resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(other[..., 0], np.asarray(expected, float), atol=1)


@pytest.mark.slow
def test_crop_and_size_are_one_resampling(heads):
    """Cropped at 128 and then reduced by Pillow is nearly the same; the crop of a reduced image is another."""
    cropped = np.asarray(frame(heads, Preprocessing(crop="head")))
    small = np.asarray(frame(heads, Preprocessing(crop="head", image_size=64)), float)
    for image, other in zip(cropped, small, strict=True):
        expected = np.asarray(Image.fromarray(image[..., 0]).resize((64, 64), Image.Resampling.BILINEAR), float)
        assert np.abs(other[..., 0] - expected).mean() < 1.5


@pytest.mark.slow
def test_use_is_training_without_chance(heads):
    preprocessing = Preprocessing(crop="head", image_size=80, normalization="foreground-z-score")
    framed = jax.jit(frame, static_argnums=1)(heads, preprocessing)
    # One grey level apart where rounding differs.
    np.testing.assert_allclose(as_inputs(framed, preprocessing), preprocess(heads, preprocessing), atol=0.1)
