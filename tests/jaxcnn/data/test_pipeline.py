"""Batches: a training order that is a function of (seed, epoch), and an evaluation that misses and doubles nothing."""

import numpy as np
import pytest

from jaxcnn.data.batch import Examples, Shard, images_of
from jaxcnn.data.dataset import Split
from jaxcnn.data.pipeline import evaluation_batches, steps_per_epoch, training_batches


def numbered(count: int, classes: int = 4) -> Split:
    """Images that carry their own number in their pixels."""
    numbers = np.arange(count)
    images = np.stack([numbers % 256, numbers // 256], axis=1).astype(np.uint8).reshape(count, 1, 2, 1)
    return Split(images, (numbers % classes).astype(np.int32), tuple(f"image-{i}" for i in numbers))


def numbers_of(images: np.ndarray) -> list[int]:
    flat = images.reshape(len(images), 2).astype(int)
    return (flat[:, 0] + 256 * flat[:, 1]).tolist()


def order(split: Split, seed: int, epoch: int, batch_size: int = 10, **options) -> list[int]:
    batches = training_batches(images_of(split), batch_size, seed=seed, epoch=epoch, **options)
    return [n for batch in batches for n in numbers_of(batch.inputs)]


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
    assert steps_per_epoch(images_of(split), 10) == 2
    assert all(len(images) == 5 for images in left_out)
    assert len({frozenset(images) for images in left_out}) > 1


def test_labels_stay_with_their_images():
    for batch in training_batches(images_of(numbered(50)), 10, seed=3, epoch=1):
        np.testing.assert_array_equal(batch.labels, np.array(numbers_of(batch.inputs)) % 4)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 25, 64])
def test_evaluation_sees_every_image_once_and_in_order(batch_size):
    batches = list(evaluation_batches(images_of(numbered(25)), batch_size))
    assert {len(batch.inputs) for batch in batches} == {batch_size}
    assert [n for b in batches for n in numbers_of(b.inputs[b.mask])] == list(range(25))


def test_batch_size_above_the_split_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"64 .* 25"):
        steps_per_epoch(images_of(numbered(25)), 64)


@pytest.mark.parametrize("start", [1, 7, 30])
def test_a_later_start_leaves_out_the_first_batches_and_nothing_else(start):
    split = numbered(300)
    assert order(split, 0, 1, start=start) == order(split, 0, 1)[10 * start :]


@pytest.mark.parametrize("count", [2, 5])
def test_the_shards_of_several_processes_are_the_batches_of_one(count):
    examples = images_of(numbered(43))
    shards = [Shard(index, count) for index in range(count)]
    for whole, parts in (
        (
            training_batches(examples, 10, seed=0, epoch=1),
            [training_batches(examples, 10, seed=0, epoch=1, shard=shard) for shard in shards],
        ),
        (evaluation_batches(examples, 10), [evaluation_batches(examples, 10, shard) for shard in shards]),
    ):
        for batch, *pieces in zip(whole, *parts, strict=True):
            for name in ("inputs", "labels") if batch.mask is None else ("inputs", "labels", "mask"):
                joined = np.concatenate([getattr(piece, name) for piece in pieces])
                np.testing.assert_array_equal(joined, getattr(batch, name))


def test_a_batch_that_the_processes_cannot_divide_is_refused():
    with pytest.raises(ValueError, match="a batch of 10 can't be shared by 3 processes"):
        next(evaluation_batches(images_of(numbered(25)), 10, Shard(0, 3)))


def test_an_epoch_takes_one_view_of_each_example_and_another_epoch_may_take_another():
    views = tuple(np.stack([np.full(40, view), np.arange(40)], axis=1) for view in range(3))
    examples = Examples(views, np.zeros(40, np.int32))

    def views_of(epoch: int) -> dict[int, int]:
        inputs = np.concatenate([b.inputs for b in training_batches(examples, 10, seed=0, epoch=epoch)])
        return {example: view for view, example in inputs.tolist()}

    assert len(views_of(1)) == 40
    assert set(views_of(1).values()) == {0, 1, 2}
    assert views_of(1) == views_of(1) != views_of(2)


def test_evaluation_sees_all_views_of_an_example_side_by_side():
    views = tuple(np.stack([np.full(25, view), np.arange(25)], axis=1) for view in range(2))
    batches = list(evaluation_batches(Examples(views, np.arange(25, dtype=np.int32)), 10))
    seen = [row for b in batches for row in b.inputs[np.repeat(b.mask, 2)].tolist()]
    assert seen == [[view, example] for example in range(25) for view in range(2)]
    assert [len(b.labels) for b in batches] == [10, 10, 10]
    shards = [evaluation_batches(Examples(views, np.arange(25, dtype=np.int32)), 10, Shard(i, 2)) for i in range(2)]
    for whole, first, second in zip(batches, *shards, strict=True):
        np.testing.assert_array_equal(np.concatenate([first.inputs, second.inputs]), whole.inputs)


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
