"""Traces of a scan's source are redrawn as the program that leaves them would, and what a scan shows stays."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from jaxcnn.data.augment import AUGMENTATIONS, BRAIN_MRI
from jaxcnn.data.traces import compress, redraw_border, redraw_compression, redraw_resolution, redraw_texture, resample
from jaxcnn.models.example_keys import example_places, keys_at

TRACES = (redraw_resolution, redraw_compression, redraw_border, redraw_texture)
compressed, resampled = jax.jit(jax.vmap(compress, (0, None))), jax.jit(resample)


def smooth_levels(seed, height=24, width=32):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).uniform(size=(height, width)), 1.5)
    return np.round(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def by_libjpeg(levels, quality):
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(int)


@pytest.mark.parametrize("quality", [1, 11, 49, 50, 75, 100])
def test_compression_leaves_what_libjpeg_leaves(quality):
    """But for numbers half-way between two steps of the table, which libjpeg's integers may round to the other side."""
    levels = np.stack([smooth_levels(seed) for seed in range(40)])
    found = np.asarray(compressed(jnp.asarray(levels / 255, jnp.float32), float(quality))) * 255
    difference = np.abs(found - np.stack([by_libjpeg(image, quality) for image in levels]))
    assert np.mean(difference > 1.01) < 0.05
    assert difference.mean() < 0.25


def test_sides_that_are_no_multiples_of_a_block_are_compressed_too():
    levels = smooth_levels(0, 21, 30)
    found = np.asarray(compress(jnp.asarray(levels / 255, jnp.float32), 50.0)) * 255
    assert np.abs(found - by_libjpeg(levels, 50)).mean() < 0.5


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.0])
def test_shrinking_is_pillows_area_filter_and_enlarging_its_bilinear_one(factor):
    image = np.random.default_rng(0).random((24, 36), np.float32)
    small = Image.fromarray(image).resize((int(36 / factor), int(24 / factor)), Image.Resampling.BOX)
    expected = np.asarray(small.resize((36, 24), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resampled(jnp.asarray(image), factor), expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1, 3), level=st.floats(0, 1))
def test_an_even_image_is_the_same_at_any_resolution(factor, level):
    image = jnp.full((20, 20), level, jnp.float32)
    np.testing.assert_allclose(resampled(image, factor), image, atol=1e-5)


def test_a_border_is_black_or_white_and_never_reaches_the_middle():
    image = jnp.full((32, 32), 0.5)
    bordered = np.asarray(jax.jit(jax.vmap(redraw_border, (0, None)))(jax.random.split(jax.random.key(0), 200), image))
    assert (bordered[:, 4:-4, 4:-4] == 0.5).all()
    painted = [set(np.unique(one)) - {0.5} for one in bordered]
    assert {0.0} in painted
    assert {1.0} in painted
    assert all(len(levels) <= 1 for levels in painted)
    # Each side by itself, up to an eighth.
    widths = (bordered[:, :4, 16] != 0.5).sum(axis=1)
    assert set(widths) == {0, 1, 2, 3, 4}


def test_texture_changes_and_mean_and_deviation_stay_about_the_same():
    image = jnp.asarray(smooth_levels(0) / 255, jnp.float32)
    textured = np.asarray(jax.jit(jax.vmap(redraw_texture, (0, None)))(jax.random.split(jax.random.key(0), 200), image))
    np.testing.assert_allclose(textured.mean(axis=(1, 2)), image.mean(), atol=1e-5)
    assert (textured.std(axis=(1, 2)) < image.std() * 1.0001).all()
    unlike = [np.corrcoef(one.ravel(), np.asarray(image).ravel())[0, 1] for one in textured]
    # Some convolutions turn what is dark bright, others leave the image nearly as it was.
    assert min(unlike) < 0
    assert max(unlike) > 0.99


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_masks_are_moved_as_the_images_whose_traces_are_redrawn(name):
    """A square is where its mask is, whatever its greys have become; a border may hide what is at the sides."""
    keys = keys_at(jax.random.key(0), jnp.arange(8))
    masks = jnp.zeros((8, 48, 48), jnp.int32).at[:, 10:24, 14:36].set(1)
    images = np.asarray(AUGMENTATIONS[name](keys, 0.9 * masks[..., None].astype(jnp.float32)))[..., 0]
    moved = np.asarray(AUGMENTATIONS[name].move_masks(keys, masks, 2))

    def likeness(masks):
        pairs = zip(images[:, 6:-6, 6:-6], np.asarray(masks)[:, 6:-6, 6:-6], strict=True)
        return np.array([abs(np.corrcoef(image.ravel(), mask.ravel())[0, 1]) for image, mask in pairs])

    assert np.median(likeness(moved)) > 0.9
    assert (likeness(moved) >= likeness(masks)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name.startswith("any-") and name != "any-sequence"])
def test_half_of_the_images_keep_a_trace_and_each_changes_by_its_own_key(name):
    images = jnp.asarray(np.stack([smooth_levels(seed, 16, 16) for seed in range(40)])[..., None] / 255, jnp.float32)
    keys = keys_at(jax.random.key(0), example_places(40))
    augment = AUGMENTATIONS[name]
    found = np.asarray(jax.jit(augment)(keys, images))
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(np.asarray(jax.jit(augment)(keys[::-1], images[::-1]))[::-1], found, atol=1e-6)
    plain = np.asarray(jax.jit(augment.first)(keys, images))
    kept = np.mean(np.abs(found - plain).max(axis=(1, 2, 3)) < 1e-6)
    each = len(augment.traces)
    assert 0.25**each < kept + 0.05
    assert kept < 0.8**each
    assert augment.first is BRAIN_MRI or name == "any-source"
