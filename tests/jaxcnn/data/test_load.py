"""load_dataset: the phantom, a prepared folder, and one line for whatever is neither."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.load import PHANTOM_TEST_IMAGES, PHANTOM_TRAIN_IMAGES, load_dataset
from jaxcnn.data.prepare import prepare
from jaxcnn.errors import UserError


@pytest.mark.slow
def test_the_phantom_has_balanced_splits_without_a_common_image() -> None:
    dataset = load_dataset("phantom")
    assert dataset.classes == CLASSES
    assert (len(dataset.splits["train"]), len(dataset.splits["test"])) == (PHANTOM_TRAIN_IMAGES, PHANTOM_TEST_IMAGES)
    for split in (dataset.splits["train"], dataset.splits["test"]):
        assert len(set(np.bincount(split.labels, minlength=4))) == 1
        assert len(set(split.names)) == len(split)
    images = [image.tobytes() for split in (dataset.splits["train"], dataset.splits["test"]) for image in split.images]
    assert len(set(images)) == len(images)


@pytest.mark.slow
def test_a_part_of_the_phantom_is_a_part_of_it() -> None:
    whole, part = load_dataset("phantom").splits["train"], load_dataset("phantom", max_images=8).splits["train"]
    assert part.names == whole.names[:8]
    np.testing.assert_array_equal(part.images, whole.images[:8])
    np.testing.assert_array_equal(np.bincount(part.labels), [2, 2, 2, 2])


@pytest.mark.slow
def test_the_phantom_needs_neither_tfds_nor_tensorflow() -> None:
    script = (
        "import sys; from jaxcnn.data.load import load_dataset; load_dataset('phantom', 4);"
        "sys.exit(bool({'tensorflow', 'tensorflow_datasets'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_max_images_keeps_every_class_of_a_prepared_set(scans: Path, tmp_path: Path) -> None:
    prepare(scans, tmp_path, size=32)
    dataset = load_dataset(str(tmp_path), max_images=4)
    np.testing.assert_array_equal(dataset.splits["train"].labels, [0, 1, 2, 3])
    np.testing.assert_array_equal(dataset.splits["test"].labels, [0, 1, 2, 3])
    assert len(load_dataset(str(tmp_path), max_images=1000).splits["train"]) == 12


def test_max_images_must_be_positive() -> None:
    with pytest.raises(ValueError, match="got 0"):
        load_dataset("phantom", max_images=0)


def test_the_source_is_the_folder_that_holds_the_data(scans: Path, tmp_path: Path) -> None:
    prepared = prepare(scans, tmp_path, size=32)
    by_out, by_folder = load_dataset(str(tmp_path)), load_dataset(str(prepared.folder))
    assert by_out.source == by_folder.source == prepared.dataset.source == str(prepared.folder)
    fingerprints = {dataset.splits["train"].fingerprint() for dataset in (by_out, by_folder, prepared.dataset)}
    assert len(fingerprints) == 1


def test_several_sizes_are_listed(scans: Path, tmp_path: Path) -> None:
    small, large = (prepare(scans, tmp_path, size=size).folder for size in (16, 32))
    with pytest.raises(UserError) as error:
        load_dataset(str(tmp_path))
    assert "holds 2 data sets; give one of" in str(error.value)
    assert str(small) in str(error.value)
    assert str(large) in str(error.value)


def test_what_is_not_prepared_is_told_how(scans: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(scans), "zip", scans))
    for source in (scans, archive):
        with pytest.raises(UserError, match=r"holds no prepared data set; .*prepare") as error:
            load_dataset(str(source))
        assert f"python -m jaxcnn.data prepare {source} --out DIR" in str(error.value)
    with pytest.raises(UserError, match="no such folder; give phantom, or"):
        load_dataset(str(tmp_path / "nowhere"))


TRAIN = "brain_tumor_mri-train.array_record-00000-of-00001"


def flip(name: str, place: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)

    return apply


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / TRAIN).unlink(),
        lambda folder: (folder / TRAIN).write_bytes(b""),
        lambda folder: (folder / TRAIN).write_bytes((folder / TRAIN).read_bytes()[:70_000]),
        flip(TRAIN, 70),
        flip(TRAIN, 2000),
        lambda folder: (folder / "features.json").unlink(),
        lambda folder: (folder / "dataset_info.json").write_text('{"name": "brain'),
        lambda folder: (folder / "label.labels.txt").write_bytes(b"glioma\nnormal\n"),
        lambda folder: (folder / "label.labels.txt").write_bytes(b"a\nb\nb\nc\n"),
        lambda folder: (folder / "label.labels.txt").write_bytes(b"a\nb\nc\nd\xff\n"),
        lambda folder: (folder / "label.labels.txt").write_bytes(b""),
    ],
)
def test_a_damaged_set_is_one_clear_error(damage: Callable[[Path], None], scans: Path, tmp_path: Path) -> None:
    folder = prepare(scans, tmp_path, size=32).folder
    damage(folder)
    with pytest.raises(UserError, match=r"2.0.0: the data set is damaged .*; prepare it again with --overwrite"):
        load_dataset(str(tmp_path))


def test_a_set_of_an_older_version_is_read_until_there_is_a_newer_one(scans: Path, tmp_path: Path) -> None:
    newer = prepare(scans, tmp_path, size=32).folder
    older = newer.rename(newer.with_name("1.0.0"))
    about = json.loads((older / "dataset_info.json").read_text("utf-8"))
    (older / "dataset_info.json").write_text(json.dumps(about | {"version": "1.0.0"}))
    before = load_dataset(str(tmp_path))
    prepare(scans, tmp_path, size=32)
    after = load_dataset(str(tmp_path))
    assert (before.source, after.source) == (str(older), str(newer))
    assert before.splits["train"].names == after.splits["train"].names


def test_another_tfds_data_set_is_refused(scans: Path, tmp_path: Path) -> None:
    folder = prepare(scans, tmp_path, size=32).folder
    features = folder / "features.json"
    features.write_text(features.read_text("utf-8").replace('"file_name"', '"address"'))
    with pytest.raises(UserError, match="is a TFDS data set of another kind"):
        load_dataset(str(folder))
