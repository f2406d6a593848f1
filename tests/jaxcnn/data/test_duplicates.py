"""Near-duplicates: what counts as a copy, and that groups are exactly the connected components."""

import numpy as np
import pytest
from PIL import Image
from planted import (
    Change,
    brighter,
    cropped,
    less_contrast,
    mirrored,
    negative,
    noisy,
    recompressed,
    smooth_images,
    trimmed,
)

from jaxcnn.data.duplicates import closest, correlations, duplicate_groups, make_thumbnails, members


def thumbnails(*images: np.ndarray) -> np.ndarray:
    return make_thumbnails(np.concatenate(images))


def related(count: int) -> np.ndarray:
    """Thumbnails of which many correlate at every degree: random mixtures of a few images."""
    random = np.random.default_rng(1)
    basis = smooth_images(4, seed=2, size=64).astype(float)
    weights = random.dirichlet(np.full(4, 0.3), count)
    return np.round(np.tensordot(weights, basis, 1)).astype(np.uint8)


def brute_force_groups(images: np.ndarray, threshold: float) -> list[int]:
    """The smallest place that can be reached from each image, step by step."""
    similar = np.corrcoef(images.reshape(len(images), -1)) > threshold
    reach = np.linalg.matrix_power(similar.astype(float) + np.eye(len(images)), len(images)) > 0
    return [int(np.flatnonzero(row)[0]) for row in reach]


def test_thumbnails_are_antialiased_as_pillow_does_it() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 100, 100, 1), np.uint8)
    for image, thumbnail in zip(images, make_thumbnails(images), strict=True):
        expected = Image.fromarray(image[..., 0]).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(thumbnail[..., 0], np.asarray(expected))


def test_correlations_are_pearsons() -> None:
    first, second = related(7), related(12)[7:]
    expected = np.corrcoef(np.concatenate([first, second]).reshape(12, -1))[:7, 7:]
    np.testing.assert_allclose(correlations(first, second), expected, atol=1e-12)


@pytest.mark.parametrize("change", [brighter, less_contrast, recompressed, noisy, trimmed])
def test_a_copy_is_found_whatever_its_brightness_contrast_and_compression(change: Change) -> None:
    images = smooth_images(6)
    copy = change(images[2])[np.newaxis]
    assert duplicate_groups(thumbnails(images, copy)).tolist() == [0, 1, 2, 3, 4, 5, 2]


@pytest.mark.parametrize("change", [cropped, mirrored, negative])
def test_what_is_no_copy_pixel_by_pixel_is_not_found(change: Change) -> None:
    images = smooth_images(6)
    other = change(images[2])[np.newaxis]
    assert duplicate_groups(thumbnails(images, other)).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_another_size_of_the_same_image_is_found() -> None:
    image = Image.fromarray(smooth_images(1, size=200)[0, ..., 0])
    small, large = (np.asarray(image.resize((size, size)))[np.newaxis, ..., np.newaxis] for size in (90, 512))
    both = np.concatenate([make_thumbnails(small), make_thumbnails(large)])
    assert duplicate_groups(both).tolist() == [0, 0]


@pytest.mark.parametrize("threshold", [0.98, 0.99, 0.995, 0.999])
def test_groups_are_the_connected_components_by_brute_force(threshold: float) -> None:
    images = related(80)
    expected = brute_force_groups(images, threshold)
    assert 1 < len(set(expected)) < 80
    assert duplicate_groups(images, threshold).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 3, 7, 50, 80, 1000])
def test_the_block_size_changes_nothing(block: int) -> None:
    images = related(80)
    np.testing.assert_array_equal(duplicate_groups(images, 0.99, block=block), duplicate_groups(images, 0.99))
    for mine, whole in zip(closest(images, images[::-1], block=block), closest(images, images[::-1]), strict=True):
        np.testing.assert_array_equal(mine, whole)


def test_a_chain_of_copies_is_one_group() -> None:
    u, v = smooth_images(2, size=64).astype(float)
    steps = np.linspace(0, 0.5, 6)[:, None, None, None]
    chain = np.round((1 - steps) * u + steps * v).astype(np.uint8)
    alike = correlations(chain, chain)
    assert alike[0, -1] < 0.9 < 0.98 < np.diagonal(alike, 1).min()
    others = smooth_images(2, seed=5, size=64)
    assert duplicate_groups(np.concatenate([chain, others])).tolist() == [0, 0, 0, 0, 0, 0, 6, 7]
    # The chain is still one when its links lie in different blocks and in another order.
    assert len(set(duplicate_groups(chain[[0, 2, 4, 1, 3, 5]], block=2).tolist())) == 1


def test_identical_images_correlate_exactly_and_blank_ones_only_with_each_other() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 1), np.uint8)
    assert (np.diag(correlations(images, images)) == 1).all()
    black, white = np.zeros_like(images[:1]), np.full_like(images[:1], 255)
    almost = black.copy()
    almost[0, 3, 3, 0] = 1
    groups = duplicate_groups(np.concatenate([images[:2], black, white, almost, black]), 0.9999999)
    assert groups.tolist() == [0, 1, 2, 2, 4, 2]


def test_no_image_and_one_image_are_groups_too() -> None:
    images = smooth_images(1)
    assert duplicate_groups(make_thumbnails(images[:0])).tolist() == []
    assert duplicate_groups(make_thumbnails(images)).tolist() == [0]


def test_the_closest_is_the_first_of_the_most_similar() -> None:
    queries, candidates = related(20), related(60)[20:]
    every = np.corrcoef(np.concatenate([queries, candidates]).reshape(60, -1))[:20, 20:]
    places, best = closest(queries, candidates)
    np.testing.assert_array_equal(places, every.argmax(axis=1))
    np.testing.assert_allclose(best, every.max(axis=1), atol=1e-12)
    twice = np.concatenate([candidates, candidates])
    np.testing.assert_array_equal(closest(queries, twice, block=7)[0], places)


def test_members_are_those_of_groups_of_two_and_more() -> None:
    groups = np.array([0, 1, 0, 3, 1, 0, 6])
    assert [group.tolist() for group in members(groups)] == [[0, 2, 5], [1, 4]]
    assert members(np.arange(4)) == []
