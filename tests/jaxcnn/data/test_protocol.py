"""What a run trains on, chooses by and is tested on: no copy on both sides of where there must be none."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import brighter, recompressed, smooth_images

from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.data.duplicates import correlations, make_thumbnails
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.protocol import Fold, Leakage, describe, hold_out, partition
from jaxcnn.errors import UserError

# Training image i is also in Testing, as copy j.
LEAKED = {0: 3, 5: 4, 10: 5}
# Copies within Training: a pair, and three.
FAMILIES = [[1, 41], [2, 42, 43]]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """40 training images and some copies of them, 12 test images of which three are copies of training images."""
    train, test = smooth_images(44), smooth_images(12, seed=1)
    train[41], train[42], train[43] = brighter(train[1]), brighter(train[2]), recompressed(train[2])
    for i, j in LEAKED.items():
        test[j] = recompressed(train[i])
    # Number 40 is a copy of a copy: like 0, and through 0 like test image 3, but not directly.
    far = smooth_images(1, seed=2)[0].astype(float)
    train[40] = np.round(0.88 * train[0] + 0.12 * far)
    test[3] = np.round(0.88 * train[0] + 0.12 * (2 * train[0].astype(float) - far).clip(0, 255))
    return dataset_of(train, test)


def dataset_of(train: np.ndarray, test: np.ndarray) -> Dataset:
    return Dataset("planted", CLASSES, {"train": split_of(train, "train"), "test": split_of(test, "test")})


def split_of(images: np.ndarray, name: str) -> Split:
    labels = np.arange(len(images), dtype=np.int32) % 4
    return Split(images, labels, tuple(f"{name}/{i}" for i in range(len(images))))


def numbers(split: Split) -> set[int]:
    return {int(name.split("/")[1]) for name in split.names}


def most_alike(first: Split, second: Split) -> float:
    return correlations(make_thumbnails(first.images), make_thumbnails(second.images)).max()


def test_the_copy_of_a_copy_is_what_the_story_says(dataset: Dataset) -> None:
    train, test = dataset.splits["train"], dataset.splits["test"]
    pairs = [(train.take(np.array([40])), train.take(np.array([0]))), (train.take(np.array([0])), test), (test, train)]
    assert [most_alike(*pair) > 0.98 for pair in pairs] == [True, True, True]
    assert most_alike(train.take(np.array([40])), test) < 0.98


def test_leak_free_leaves_out_what_is_in_a_group_with_a_test_image_and_nothing_else(dataset: Dataset) -> None:
    parts, leakage = partition(dataset, "leak-free", 0.2, seed=0)
    used = numbers(parts.splits["train"]) | numbers(parts.splits["validation"])
    assert used == set(range(44)) - set(LEAKED) - {40}
    for name in ("train", "validation"):
        assert most_alike(parts.splits[name], dataset.splits["test"]) < 0.98
    assert (leakage.groups, leakage.train, leakage.test) == (3, 4, 3)
    copied = dataset.splits["test"].take(np.flatnonzero(np.isin(dataset.splits["test"].names, leakage.copied)))
    assert len(copied) == 3
    for one in range(3):
        assert most_alike(copied.take(np.array([one])), dataset.splits["train"]) > 0.98


def test_official_leaves_every_image_where_it_is(dataset: Dataset) -> None:
    parts, leakage = partition(dataset, "official", 0.2, seed=0)
    train, validation = numbers(parts.splits["train"]), numbers(parts.splits["validation"])
    assert train | validation == set(range(44))
    assert not train & validation
    assert leakage == partition(dataset, "leak-free", 0.2, seed=0)[1]


@pytest.mark.parametrize("protocol", ["official", "leak-free"])
@pytest.mark.parametrize("seed", range(8))
def test_no_validation_image_has_a_copy_among_those_trained_on(dataset: Dataset, protocol: str, seed: int) -> None:
    splits = partition(dataset, protocol, 0.3, seed=seed)[0].splits
    assert most_alike(splits["train"], splits["validation"]) < 0.98
    for family in FAMILIES:
        assert numbers(splits["validation"]) & set(family) in (set(), set(family))
    assert splits["test"] is dataset.splits["test"]


def test_a_partition_is_a_function_of_the_seed(dataset: Dataset) -> None:
    def names(seed: int) -> list[tuple[str, ...]]:
        return [split.names for split in partition(dataset, "official", 0.2, seed=seed)[0].splits.values()]

    assert names(0) == names(0)
    assert names(0) != names(1)


def test_without_copies_each_class_gives_its_exact_share() -> None:
    labels = np.repeat(np.arange(4), [50, 40, 30, 7])
    held_out = hold_out(labels, np.arange(127), 0.1, seed=3)
    assert np.bincount(labels[held_out]).tolist() == [5, 4, 3, 1]


@given(
    members=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 5),
)
def test_groups_stay_whole_and_no_group_that_fits_is_missing(
    members: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    labels, groups = np.array(members).T
    held_out = hold_out(labels, groups, fraction, seed=seed)
    share = np.maximum(1, np.round(fraction * np.bincount(labels, minlength=4)))
    room = share - np.bincount(labels[held_out], minlength=4)
    assert (room >= 0).all()
    for group in np.unique(groups):
        chosen = held_out[groups == group]
        assert chosen.all() or not chosen.any()
        if not chosen.any():
            assert (np.bincount(labels[groups == group], minlength=4) > room).any()
    np.testing.assert_array_equal(held_out, hold_out(labels, groups, fraction, seed=seed))


def test_the_description_is_json_with_counts_and_fingerprints(dataset: Dataset) -> None:
    parts, leakage = partition(dataset, "leak-free", 0.2, seed=0)
    described = json.loads(json.dumps(describe(parts, leakage, "leak-free")))
    assert described["protocol"] == "leak-free"
    assert described["crossing"] == {
        "groups": 3,
        "train": 4,
        "test": 3,
        "copied": list(leakage.copied),
        "patients": 0,
        "validation": 0,
    }
    assert described["left_out"] == 4
    assert {name: sum(counts.values()) for name, counts in described["images"].items()} == {
        name: len(split) for name, split in parts.splits.items()
    }
    assert sum(len(split) for split in parts.splits.values()) == 44 - 4 + 12
    assert described["fingerprints"]["validation"] == parts.splits["validation"].fingerprint()
    official = describe(*partition(dataset, "official", 0.2, seed=0), "official")
    assert official["left_out"] == 0
    assert official["fingerprints"]["train"] != described["fingerprints"]["train"]
    assert official["fingerprints"]["test"] == described["fingerprints"]["test"]


def partition_of(train: np.ndarray, test: np.ndarray, fraction: float = 0.1) -> Dataset:
    return partition(dataset_of(train, test), "leak-free", fraction, seed=0)[0]


def test_a_class_that_is_used_up_is_named() -> None:
    images, others = smooth_images(40), smooth_images(4, seed=1)
    with pytest.raises(ValueError, match="the 1 training images of glioma_tumor leave 0 to train on and 1 to validate"):
        partition_of(images[:4], others)
    with pytest.raises(ValueError, match=r"the 10 training images of .* leave 0 to train on and 10 to validate on"):
        partition_of(images, others, fraction=0.99)
    with pytest.raises(ValueError, match=r"the 0 training images of no_tumor \(10 more are copies of test images\)"):
        partition_of(images, images[2::4])
    # All no_tumor images are copies of one another: they can't be divided.
    images[2::4] = images[2]
    with pytest.raises(
        ValueError, match="the 10 training images of no_tumor leave 10 to train on and 0 to validate on"
    ):
        partition_of(images, others)


# --- Patients, held-out test images and folds ---------------------------------------------------------------------


def patients_of(count: int, patients: int, classes: int = 2, **splits: slice) -> Dataset:
    """Images of patients who have several each, in no order; the slices say which images are in which split."""
    random = np.random.default_rng(0)
    names = tuple(f"patient {number}" for number in random.integers(0, patients, count))
    labels = random.integers(0, classes, count).astype(np.int32)
    whole = Split(smooth_images(count, seed=3, size=32), labels, tuple(f"{i}" for i in range(count)), names)
    places = np.arange(count)
    parts = {name: whole.take(places[of]) for name, of in (splits or {"train": slice(None)}).items()}
    return Dataset("patients", tuple("abcdefgh"[:classes]), parts)


def assert_no_group_is_cut(dataset: Dataset) -> None:
    """Neither a patient nor near-duplicates are in two splits."""
    for first, second in itertools.combinations(dataset.splits.values(), 2):
        assert not (set(first.patients) & set(second.patients)) - {""}
        assert most_alike(first, second) < 0.98


@pytest.mark.parametrize("seed", range(4))
def test_without_test_images_some_are_held_out_and_no_patient_is_cut(seed: int) -> None:
    dataset = patients_of(200, 40)
    parts, leakage = partition(dataset, "leak-free", 0.1, seed=seed, test_fraction=0.25)
    assert leakage == Leakage()
    assert_no_group_is_cut(parts)
    assert sorted(name for split in parts.splits.values() for name in split.names) == sorted(
        dataset.splits["train"].names
    )
    of_class = np.bincount(dataset.splits["train"].labels)
    np.testing.assert_allclose(np.bincount(parts.splits["test"].labels) / of_class, 0.25, atol=0.06)
    np.testing.assert_allclose(np.bincount(parts.splits["validation"].labels) / of_class, 0.075, atol=0.06)


def test_copies_of_two_patients_join_them() -> None:
    dataset = patients_of(60, 12)
    split = dataset.splits["train"]
    first, second = split.patients.index("patient 1"), split.patients.index("patient 2")
    split.images[second] = split.images[first]
    groups = split.groups
    joined = {groups[i] for i, name in enumerate(split.patients) if name in ("patient 1", "patient 2")}
    assert len(joined) == 1
    assert len(np.unique(groups)) == 12 - 1


def test_images_of_unknown_patients_are_on_their_own() -> None:
    split = Split(smooth_images(4), np.zeros(4, np.int32), tuple("abcd"), ("", "p", "", "p"))
    np.testing.assert_array_equal(split.groups, [0, 1, 2, 1])


def test_a_few_patients_of_many_images_still_give_some_of_each_class() -> None:
    """A tenth of three patients is none of them; then the one with the fewest images is held out."""
    names = ("p1",) * 20 + ("p2",) * 12 + ("p3",) * 15 + ("q1",) * 9 + ("q2",) * 10 + ("q3",) * 11
    labels = np.repeat(np.arange(2, dtype=np.int32), [47, 30])
    train = Split(smooth_images(77, size=32), labels, tuple(map(str, range(77))), names)
    test = Split(smooth_images(4, seed=9, size=32), np.arange(4, dtype=np.int32) % 2, tuple("abcd"))
    parts, _ = partition(Dataset("few", ("p", "q"), {"train": train, "test": test}), "leak-free", 0.1, seed=0)
    assert set(parts.splits["validation"].patients) == {"p2", "q1"}


def test_a_patient_on_both_sides_of_a_published_split_leaves_training() -> None:
    dataset = patients_of(120, 30, train=slice(0, 90), test=slice(90, 120))
    parts, leakage = partition(dataset, "leak-free", 0.1, seed=0)
    assert_no_group_is_cut(parts)
    assert parts.splits["test"] is dataset.splits["test"]
    tested = set(dataset.splits["test"].patients)
    crossing = [name for name in dataset.splits["train"].patients if name in tested]
    assert (leakage.train, leakage.patients) == (len(crossing), len(set(crossing)))
    others = set(dataset.splits["train"].patients)
    assert leakage.copied == tuple(
        name
        for name, patient in zip(dataset.splits["test"].names, dataset.splits["test"].patients, strict=True)
        if patient in others
    )
    official, same = partition(dataset, "official", 0.1, seed=0)
    assert same == leakage
    assert len(official.splits["train"]) + len(official.splits["validation"]) == 90


def test_validation_images_that_a_set_comes_with_are_kept_but_for_what_crosses() -> None:
    dataset = patients_of(160, 30, train=slice(0, 100), validation=slice(100, 130), test=slice(130, 160))
    parts, leakage = partition(dataset, "leak-free", 0.1, seed=0)
    assert_no_group_is_cut(parts)
    assert set(parts.splits["validation"].names) <= set(dataset.splits["validation"].names)
    left_out = 160 - sum(len(split) for split in parts.splits.values())
    assert describe(parts, leakage, "leak-free")["left_out"] == left_out == leakage.train + leakage.validation > 0
    official, _ = partition(dataset, "official", 0.1, seed=0)
    assert {name: split.names for name, split in official.splits.items()} == {
        name: split.names for name, split in dataset.splits.items()
    }
    without_test = patients_of(130, 30, train=slice(0, 100), validation=slice(100, 130))
    assert_no_group_is_cut(partition(without_test, "leak-free", 0.1, seed=0)[0])


@pytest.mark.parametrize("own", [{}, {"train": slice(0, 150), "test": slice(150, 180)}])
def test_every_training_image_is_tested_once_over_the_folds(own: dict[str, slice]) -> None:
    dataset = patients_of(180, 40, classes=3, **own)
    tested: list[str] = []
    for number in range(1, 6):
        parts, leakage = partition(dataset, "leak-free", 0.1, seed=0, fold=Fold(number, 5))
        assert leakage == Leakage()
        assert_no_group_is_cut(parts)
        used = [name for split in parts.splits.values() for name in split.names]
        assert sorted(used) == sorted(dataset.splits["train"].names)
        shares = np.bincount(parts.splits["test"].labels) / np.bincount(dataset.splits["train"].labels)
        np.testing.assert_allclose(shares, 0.2, atol=0.09)
        tested += parts.splits["test"].names
    assert sorted(tested) == sorted(dataset.splits["train"].names)


def test_more_folds_than_patients_and_no_training_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the images of a form \d groups \(patients, copies\), too few for 9 folds"):
        partition(patients_of(40, 8), "leak-free", 0.1, seed=0, fold=Fold(1, 9))
    with pytest.raises(UserError, match="patients: has no training images"):
        partition(patients_of(40, 8, test=slice(None)), "leak-free", 0.1, seed=0)


def test_data_json_counts_patients() -> None:
    parts, leakage = partition(patients_of(120, 30), "leak-free", 0.1, seed=0)
    described = json.loads(json.dumps(describe(parts, leakage, "leak-free")))
    assert described["patients"] == {name: len(set(split.patients)) for name, split in parts.splits.items()}
    assert sum(described["patients"].values()) == len(set(patients_of(120, 30).splits["train"].patients))
