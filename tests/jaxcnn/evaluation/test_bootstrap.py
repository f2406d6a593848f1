"""The intervals: against the binomial distribution, for copies, and as often right as they promise."""

import numpy as np
import pytest
from scipy import stats

from jaxcnn.evaluation.bootstrap import group_weights, interval, resampled_measures


def accuracy_interval(right, groups, resamples=4000, seed=0):
    """The interval of the accuracy of images that are `right` or not."""
    logits = np.stack([right, 1 - right], axis=1).astype(np.float32)
    drawn = resampled_measures(logits, np.zeros(len(right), np.int32), groups, resamples, seed=seed)
    return np.array(interval(drawn.accuracy))


def test_for_single_images_the_resampled_accuracy_is_binomial():
    right = np.arange(300) < 240
    low, high = accuracy_interval(right, np.arange(300), resamples=20_000)
    expected = stats.binom(300, 0.8).ppf([0.025, 0.975]) / 300
    np.testing.assert_allclose([low, high], expected, atol=1.01 / 300)


@pytest.mark.slow
def test_copies_in_groups_leave_the_interval_as_it_was_and_copies_on_their_own_shrink_it():
    right, copies = np.arange(200) % 3 > 0, 9
    once = accuracy_interval(right, np.arange(200))
    repeated, groups = np.repeat(right, copies), np.repeat(np.arange(200), copies)
    np.testing.assert_allclose(accuracy_interval(repeated, groups), once)
    taken_for_new = accuracy_interval(repeated, np.arange(200 * copies))
    assert np.diff(once) / np.diff(taken_for_new) == pytest.approx(np.sqrt(copies), rel=0.05)


def test_a_resample_has_as_many_groups_as_there_are_and_whole_ones():
    groups = np.array([0, 1, 1, 3, 0, 5, 1])
    weights = np.concatenate(list(group_weights(groups, 500, seed=0)))
    for members in ([0, 4], [1, 2, 6]):
        assert (weights[:, members] == weights[:, members[:1]]).all()
    times = weights[:, [0, 1, 3, 5]]
    assert (times.sum(axis=1) == 4).all()
    assert stats.chisquare(times.sum(axis=0)).pvalue > 0.001
    # As often 0, 1, ... times as drawing 4 of 4 with replacement gives.
    found = np.bincount(times.astype(int).ravel(), minlength=5) / times.size
    np.testing.assert_allclose(found, stats.binom(4, 1 / 4).pmf(np.arange(5)), atol=0.03)


def test_the_seed_decides_and_the_block_does_not():
    groups = np.array([0, 0, 2, 3, 4, 4])
    whole = np.concatenate(list(group_weights(groups, 101, seed=7)))
    in_parts = list(group_weights(groups, 101, seed=7, block=60))
    assert [len(part) for part in in_parts] == [10] * 10 + [1]
    np.testing.assert_array_equal(np.concatenate(in_parts), whole)
    assert (np.concatenate(list(group_weights(groups, 101, seed=8))) != whole).any()


def test_the_interval_is_made_of_what_is_defined():
    nan = np.nan
    values = np.stack([np.arange(101.0), np.full(101, nan), np.append(np.arange(100.0) % 2, nan)], axis=1)
    low, high = interval(values, level=0.9)
    np.testing.assert_allclose(low, [5, nan, 0])
    np.testing.assert_allclose(high, [95, nan, 1])


def test_paired_resamples_are_more_certain_of_a_difference_than_separate_ones():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300).astype(np.int32)
    easy = random.normal(size=(300, 1)) + 0.5
    first, second = (easy * np.eye(3)[labels] + 0.1 * random.normal(size=(300, 3)) for _ in range(2))
    a, b = (resampled_measures(logits.astype(np.float32), labels, np.arange(300), 1000) for logits in (first, second))
    other = resampled_measures(second.astype(np.float32), labels, np.arange(300), 1000, seed=1)
    paired, separate = (np.diff(interval(difference.log_loss))[0] for difference in (a - b, a - other))
    assert paired < separate / 3


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_promise():
    # Groups of 1 to 4 images that are all right or all wrong, as copies are.
    random = np.random.default_rng(0)
    held = []
    for seed in range(400):
        sizes = random.integers(1, 5, 100)
        right = np.repeat(random.random(100) < 0.7, sizes)
        low, high = accuracy_interval(right, np.repeat(np.arange(100), sizes), resamples=400, seed=seed)
        held.append(low <= 0.7 <= high)
    # Three standard errors about 0.95; resampled by image these would hold it three times in four.
    assert 0.915 < np.mean(held) < 0.985
