"""The resampling is SciPy's, and exact where no pixel has to be interpolated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcnn.data.affine import transform


def random_image(height=33, width=40):
    return np.random.default_rng(0).uniform(size=(height, width)).astype(np.float32)


def transformed(image, *, flip=(1, 1), degrees=0, scale=(1, 1), shift=(0, 0)):
    numbers = (jnp.asarray(number, jnp.float32) for number in (flip, degrees, scale, shift))
    options = dict(zip(("flip", "degrees", "scale", "shift"), numbers, strict=True))
    return np.asarray(jax.jit(transform)(jnp.asarray(image), **options))


def lower_quartile_of_border(image):
    border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    return np.sort(border)[(len(border) - 1) // 4]


@pytest.mark.parametrize("degrees", [7, -23, 90, 130])
def test_a_known_rotation_is_scipys(degrees):
    image = random_image()
    # ndimage.rotate turns counterclockwise, too, as seen on the screen (rows down).
    expected = ndimage.rotate(
        image, degrees, order=1, reshape=False, mode="grid-constant", cval=lower_quartile_of_border(image)
    )
    np.testing.assert_allclose(transformed(image, degrees=degrees), expected, atol=2e-5)


def test_all_at_once_is_scipys_affine_transform_with_the_matrices_multiplied():
    image = random_image()
    angle, centre = np.deg2rad(15), (np.array(image.shape) - 1) / 2
    # Row and column: up is negative, so that counterclockwise takes (0, 1), right, to (-1, 0), up.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forwards = turn @ np.diag([1.2, 0.9]) @ np.diag([-1, 1])
    backwards = np.linalg.inv(forwards)
    moved = np.array([0.1, -0.05]) * image.shape
    expected = ndimage.affine_transform(
        image,
        backwards,
        centre - backwards @ (centre + moved),
        order=1,
        mode="grid-constant",
        cval=lower_quartile_of_border(image),
    )
    actual = transformed(image, flip=(-1, 1), degrees=15, scale=(1.2, 0.9), shift=(0.1, -0.05))
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_nothing_changes_no_bit():
    np.testing.assert_array_equal(transformed(random_image()), random_image())


def test_mirror_images_are_numpys():
    image = random_image()
    np.testing.assert_array_equal(transformed(image, flip=(1, -1)), image[:, ::-1])
    np.testing.assert_array_equal(transformed(image, flip=(-1, 1)), image[::-1])


def test_a_shift_by_whole_pixels_moves_them_and_lets_background_in():
    image = random_image(32, 64)
    expected = np.full_like(image, lower_quartile_of_border(image))
    expected[3:, :-5] = image[:-3, 5:]
    np.testing.assert_array_equal(transformed(image, shift=(3 / 32, -5 / 64)), expected)


@pytest.mark.parametrize("background", [0.0, 0.3, 1.0])
def test_the_page_around_a_scan_goes_on(background):
    image = np.full((32, 32), background, np.float32)
    image[8:, 10:22] = 0.6  # A head with a neck that leaves the image.
    turned = transformed(image, degrees=45, scale=(0.7, 0.7))
    np.testing.assert_allclose(turned[[0, 0, -1, -1], [0, -1, 0, -1]], background, rtol=1e-6)
