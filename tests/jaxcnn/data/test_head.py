"""The crop finds a head wherever it was put, whatever is around it, and leaves alone what has none."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxcnn.data.head import crop_to_head
from jaxcnn.data.phantom import phantom_images

crop = jax.jit(crop_to_head)


def cropped(image):
    return np.asarray(crop(jnp.asarray(image, jnp.float32)[None, ..., None]))[0, ..., 0]


@pytest.fixture(scope="module")
def head():
    """An axial phantom, cut out along its skin, as bright as a scan that uses the whole grey scale."""
    image = phantom_images(0, np.arange(8))[0][3, ..., 0] / 255
    outside = ~ndimage.binary_fill_holes(ndimage.binary_opening(ndimage.gaussian_filter(image, 1) > 0.12))
    rows, columns = (np.flatnonzero((~outside).any(axis=axis)) for axis in (1, 0))
    bright = np.clip(image / np.percentile(image, 99), 0, 1)
    return np.where(outside, 0, bright)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def scan(head, height=60, top=30, left=40, size=128, background=0.0):
    """An image with the head in it, this high, and where it lies: top, left, height and width."""
    width = round(height * head.shape[1] / head.shape[0])
    small = np.asarray(Image.fromarray(head.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    image = np.full((size, size), background)
    place = image[top : top + height, left : left + width]
    np.copyto(place, small, where=small > background)
    return image, (top, left, height, width)


def box(image):
    """Top, left, height and width of what isn't background."""
    lit = image > 0.15
    rows, columns = (np.flatnonzero(lit.any(axis=axis)) for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]


def assert_filled_by_head(image, tolerance=6):
    """The head is as high as the image but for a small margin, and in the middle."""
    top, left, height, width = box(image)
    size = len(image)
    assert abs(height - 0.94 * size) <= tolerance
    assert abs(top + height / 2 - size / 2) <= tolerance / 2
    assert abs(left + width / 2 - size / 2) <= tolerance / 2


@pytest.mark.slow
@pytest.mark.parametrize(("height", "top", "left"), [(60, 30, 40), (40, 5, 80), (100, 20, 10), (50, 78, 2)])
def test_a_head_of_any_size_at_any_place_fills_the_image(head, height, top, left):
    image, place = scan(head, height, top, left)
    result = cropped(image)
    if top > 10 and left > 10:
        assert_filled_by_head(result)
    # Its shape stays: nothing is stretched.
    _, _, seen_height, seen_width = box(result)
    assert seen_height / seen_width == pytest.approx(place[2] / place[3], rel=0.08)


@pytest.mark.slow
def test_the_result_is_a_square_of_the_image_enlarged_bilinearly(head):
    """Its corner and side, found by trying squares around the head, make SciPy enlarge it to the same."""
    image, (top, left, height, width) = scan(head)
    result = cropped(image)
    middle = np.array([top + height / 2, left + width / 2])
    pixels = (np.indices((128, 128)).reshape(2, -1) + 0.5) / 128

    def difference(side, middle):
        places = (middle - side / 2)[:, None] + side * pixels - 0.5
        return np.abs(ndimage.map_coordinates(image, places, order=1).reshape(128, 128) - result).mean()

    # The copy in which the head is sought has pixels of twice the size; the margin is 0.02 of the image on each side.
    sides = 2 * np.arange(height // 2 - 2, height // 2 + 4) + 2 * 0.02 * 128
    rows, columns = (np.arange(round(place) - 2, round(place) + 3) for place in middle)
    squares = itertools.product(sides, rows, columns)
    assert min(difference(side, np.array([row, column])) for side, row, column in squares) < 1e-5


def draw_frame(image, width, grey):
    framed = image.copy()
    for side in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        framed[side] = grey
    return framed


def write_text(image):
    annotated = image.copy()
    annotated[4:9, 4:30:3] = 1
    annotated[118:123, 90:120:4] = 1
    return annotated


def add_noise(image):
    # Of a magnitude image: Rician, so that the background isn't black.
    real, imaginary = np.random.default_rng(0).normal(0, 0.04, (2, *image.shape))
    return np.clip(np.hypot(image + real, imaginary), 0, 1)


def grey_panel(image):
    """The scan is a dark grey rectangle on a black page."""
    panel = np.zeros_like(image)
    panel[:, 12:116] = 0.1
    return np.maximum(image, panel)


SURROUNDINGS = {
    "white frame": lambda image: draw_frame(image, 4, 1.0),
    "thin grey frame": lambda image: draw_frame(image, 1, 0.5),
    "text": write_text,
    "noise": add_noise,
    "grey panel": grey_panel,
    "dark": lambda image: 0.2 * image,
    "all at once": lambda image: write_text(draw_frame(add_noise(image), 3, 0.8)),
}


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_what_is_around_a_head_does_not_matter(head, surrounding):
    clean, _ = scan(head, height=80, top=25, left=35)
    result = cropped(SURROUNDINGS[surrounding](clean))
    reference = cropped(clean)
    if surrounding == "dark":
        result = result / 0.2
    # The same square, but for a pixel of the copy in which it is sought.
    assert np.corrcoef(result.ravel(), reference.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("background", [0.1, 0.2])
def test_a_grey_background_is_none_of_the_head(head, background):
    image, _ = scan(head, background=background)
    clean, _ = scan(head)
    assert np.corrcoef(cropped(image).ravel(), cropped(clean).ravel())[0, 1] > 0.9


def test_a_bright_tumour_does_not_pass_for_the_head(head):
    image, (top, left, height, width) = scan(0.3 * head, height=90, top=20, left=30)
    rows, columns = np.indices(image.shape)
    tumour = np.hypot(rows - top - height / 3, columns - left - width / 2) < 16
    seen = cropped(np.where(tumour, 1, image))
    np.testing.assert_allclose(box(seen / 0.3), box(cropped(image) / 0.3), atol=4)


def test_images_without_a_head_come_back_bit_for_bit():
    blank = np.stack([np.full((128, 128, 1), grey, np.float32) for grey in (0, 0.3, 1)])
    text = write_text(np.zeros((128, 128)))[None, ..., None].astype(np.float32)
    images = np.concatenate([blank, text])
    np.testing.assert_array_equal(crop(jnp.asarray(images)), images)


def test_a_head_that_leaves_the_image_on_all_sides_is_not_cut():
    full = 0.5 + 0.4 * np.random.default_rng(0).uniform(size=(128, 128))
    full[40:60, 40:60] = 0
    np.testing.assert_allclose(cropped(full), full, atol=1e-6)


@pytest.mark.slow
def test_each_image_by_itself_and_of_any_shape(head):
    first, second = scan(head)[0], scan(head, 90, 10, 20)[0]
    images = jnp.asarray(np.stack([first, second])[..., None], jnp.float32)
    np.testing.assert_allclose(crop(images)[1, ..., 0], cropped(second), atol=1e-5)
    wide = np.asarray(Image.fromarray(first.astype(np.float32)).resize((200, 96)))
    seen = cropped(wide)
    assert seen.shape == (96, 200)
    assert box(seen)[2] > 0.75 * 96
