"""Batches: a training order that is a function of (seed, epoch), and an evaluation that misses and doubles nothing."""

import numpy as np
import pytest

from jaxcnn.data.dataset import Split
from jaxcnn.data.pipeline import evaluation_batches, steps_per_epoch, to_unit_range, training_batches


def numbered(count: int, classes: int = 4) -> Split:
    """Images that carry their own number in their pixels."""
    numbers = np.arange(count)
    images = np.stack([numbers % 256, numbers // 256], axis=1).astype(np.uint8).reshape(count, 1, 2, 1)
    return Split(images, (numbers % classes).astype(np.int32), tuple(f"image-{i}" for i in numbers))


def numbers_of(images: np.ndarray) -> list[int]:
    flat = images.reshape(len(images), 2).astype(int)
    return (flat[:, 0] + 256 * flat[:, 1]).tolist()


def order(split: Split, seed: int, epoch: int, batch_size: int = 10) -> list[int]:
    return [n for b in training_batches(split, batch_size, seed=seed, epoch=epoch) for n in numbers_of(b.images)]


def test_training_order_is_a_function_of_seed_and_epoch():
    split = numbered(300)
    first = order(split, seed=0, epoch=1)
    assert first == order(split, seed=0, epoch=1)
    assert sorted(first) == list(range(300))
    others = [order(split, 0, 2), order(split, 1, 1), order(split, 1, 0), list(range(300))]
    assert first not in others
    # (0, 1) and (1, 0) have the same sum and the same digits.
    assert order(split, 0, 1) != order(split, 1, 0)


def test_training_leaves_out_the_rest_of_a_batch_but_not_always_the_same_images():
    split = numbered(25)
    left_out = [set(range(25)) - set(order(split, 0, epoch)) for epoch in range(4)]
    assert steps_per_epoch(split, 10) == 2
    assert all(len(images) == 5 for images in left_out)
    assert len({frozenset(images) for images in left_out}) > 1


def test_labels_stay_with_their_images():
    for batch in training_batches(numbered(50), 10, seed=3, epoch=1):
        np.testing.assert_array_equal(batch.labels, np.array(numbers_of(batch.images)) % 4)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 25, 64])
def test_evaluation_sees_every_image_once_and_in_order(batch_size):
    batches = list(evaluation_batches(numbered(25), batch_size))
    assert {len(batch.images) for batch in batches} == {batch_size}
    assert [n for b in batches for n in numbers_of(b.images[b.mask])] == list(range(25))


def test_batch_size_above_the_split_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"64 .* 25"):
        steps_per_epoch(numbered(25), 64)


def test_models_see_floats_in_the_unit_range():
    images = to_unit_range(np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1))
    assert images.dtype == np.float32
    np.testing.assert_allclose(images.ravel(), [0.0, 0.2, 1.0], rtol=1e-6)


def test_spread_keeps_the_share_of_each_class_and_the_whole_range():
    by_class = Split(np.zeros((40, 1, 2, 1), np.uint8), np.repeat(np.arange(4, dtype=np.int32), 10), ("x",) * 40)
    assert np.bincount(by_class.spread(12).labels).tolist() == [3, 3, 3, 3]
    assert numbers_of(numbered(40).spread(3).images) == [0, 20, 39]
    assert len(numbered(5).spread(9)) == 5


def test_fingerprint_changes_with_any_pixel_and_any_label():
    split = numbered(20)
    pixel, label = split.images.copy(), split.labels.copy()
    pixel[7, 0, 0, 0] += 1
    label[7] = (label[7] + 1) % 4
    prints = {
        split.fingerprint(),
        Split(pixel, split.labels, split.names).fingerprint(),
        Split(split.images, label, split.names).fingerprint(),
    }
    assert len(prints) == 3
    assert split.fingerprint() == numbered(20).fingerprint()
