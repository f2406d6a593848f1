"""`python -m jaxcnn.data audit` finds planted copies, crossings and label conflicts, all of them and nothing else."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planted import brighter, cropped, less_contrast, mirrored, recompressed, smooth_images

from jaxcnn.data.audit.collection import Collection, read_collection
from jaxcnn.data.audit.contact_sheet import MOST_PAIRS, contact_sheet
from jaxcnn.data.audit.findings import find_duplicates
from jaxcnn.data.duplicates import make_thumbnails
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.prepare import prepare

Command = Callable[..., tuple[int, str, str]]

GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY = CLASSES


def write(folder: Path, images: dict[str, np.ndarray]) -> Path:
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / name)
    return folder


@pytest.fixture
def originals() -> dict[str, np.ndarray]:
    """Four different images a class in Training, two in Testing."""
    names = [f"Training/{label}/{i}.png" for label in CLASSES for i in range(4)]
    names += [f"Testing/{label}/{i}.png" for label in CLASSES for i in range(2)]
    return dict(zip(names, smooth_images(len(names)), strict=True))


@pytest.fixture
def planted(originals: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """The originals with copies among them."""

    def original(label: str, number: int) -> np.ndarray:
        return originals[f"Training/{label}/{number}.png"]

    copies = {
        # Three files in one split, two of them identical.
        f"Training/{GLIOMA}/same file.png": original(GLIOMA, 0),
        f"Training/{GLIOMA}/brighter.png": brighter(original(GLIOMA, 0)),
        # Across the split: an identical file, and one that is not.
        f"Testing/{NO_TUMOR}/same file.png": original(NO_TUMOR, 1),
        f"Testing/{PITUITARY}/recompressed.jpg": recompressed(original(PITUITARY, 2)),
        # Another label, in one split and across.
        f"Training/{PITUITARY}/was meningioma.png": less_contrast(original(MENINGIOMA, 3)),
        f"Testing/{GLIOMA}/was no tumor.png": original(NO_TUMOR, 0),
        # No near-duplicates.
        f"Testing/{MENINGIOMA}/cropped.png": cropped(original(MENINGIOMA, 1)),
        f"Testing/{MENINGIOMA}/mirrored.png": mirrored(original(MENINGIOMA, 1)),
    }
    return write(tmp_path / "scans", originals | copies)


# Group, crosses the splits, labels conflict.
IDENTICAL = {
    (frozenset({f"Training/{GLIOMA}/0.png", f"Training/{GLIOMA}/same file.png"}), False, False),
    (frozenset({f"Training/{NO_TUMOR}/1.png", f"Testing/{NO_TUMOR}/same file.png"}), True, False),
    (frozenset({f"Training/{NO_TUMOR}/0.png", f"Testing/{GLIOMA}/was no tumor.png"}), True, True),
}
NEAR = {
    (frozenset({f"Training/{GLIOMA}/{name}.png" for name in ("0", "same file", "brighter")}), False, False),
    (frozenset({f"Training/{NO_TUMOR}/1.png", f"Testing/{NO_TUMOR}/same file.png"}), True, False),
    (frozenset({f"Training/{NO_TUMOR}/0.png", f"Testing/{GLIOMA}/was no tumor.png"}), True, True),
    (frozenset({f"Training/{PITUITARY}/2.png", f"Testing/{PITUITARY}/recompressed.jpg"}), True, False),
    (frozenset({f"Training/{MENINGIOMA}/3.png", f"Training/{PITUITARY}/was meningioma.png"}), False, True),
}


def groups(section: dict[str, Any]) -> set[tuple[frozenset[str], bool, bool]]:
    return {
        (frozenset(image["name"] for image in group["images"]), group["crosses_splits"], group["labels_conflict"])
        for group in section["members"]
    }


def run_audit(run_command: Command, source: object, out: Path, *options: object) -> tuple[dict[str, Any], str]:
    code, printed, err = run_command("audit", source, "--out", out, *options)
    assert (code, err) == (0, "")
    return json.loads((out / "audit.json").read_text("utf-8")), printed


def test_it_finds_what_was_planted_and_nothing_else(planted: Path, tmp_path: Path, run_command: Command) -> None:
    report, _ = run_audit(run_command, planted, tmp_path / "out")
    assert groups(report["identical"]) == IDENTICAL
    assert groups(report["near_duplicates"]) == NEAR
    crossing = {images for images, crosses, _ in NEAR if crosses}
    assert {frozenset(pair["images"]) for pair in report["crossing_pairs"]} == crossing
    assert [pair["labels_conflict"] for pair in report["crossing_pairs"]].count(True) == 1
    assert all(0.98 < pair["correlation"] <= 1 for pair in report["crossing_pairs"])
    # Every image of a group is described by where it lies.
    for group in report["identical"]["members"] + report["near_duplicates"]["members"]:
        for image in group["images"]:
            assert image["name"].startswith(f"{image['split']}/{image['label']}/")


def test_the_counts_add_up(planted: Path, tmp_path: Path, run_command: Command) -> None:
    report, printed = run_audit(run_command, planted, tmp_path / "out")
    assert report["images"] == {
        "Training": {GLIOMA: 6, MENINGIOMA: 4, NO_TUMOR: 4, PITUITARY: 5},
        "Testing": {GLIOMA: 3, MENINGIOMA: 4, NO_TUMOR: 3, PITUITARY: 3},
    }
    assert report["crossing_images"] == {
        "Training": {GLIOMA: 0, MENINGIOMA: 0, NO_TUMOR: 2, PITUITARY: 1},
        "Testing": {GLIOMA: 1, MENINGIOMA: 0, NO_TUMOR: 1, PITUITARY: 1},
    }
    assert report["direct_twins"] == report["crossing_images"]
    counts = ("groups", "images", "redundant", "crossing", "conflicting")
    assert [report["identical"][name] for name in counts] == [3, 6, 3, 2, 1]
    assert [report["near_duplicates"][name] for name in counts] == [5, 11, 6, 3, 2]
    assert re.search(r"^Training +6 +4 +4 +5 +19$", printed, re.MULTILINE)
    assert re.search(r"^Testing +3 +4 +3 +3 +13\n  copied in another split +1 +0 +1 +1 +3 +23%$", printed, re.MULTILINE)
    assert re.search(r"^identical files +3 +6 +3 +2 +1$", printed, re.MULTILINE)
    assert re.search(r"^near-duplicates +5 +11 +6 +3 +2$", printed, re.MULTILINE)


def test_sizes_that_differ_from_class_to_class_are_shown(tmp_path: Path, run_command: Command) -> None:
    """A network may learn those instead; where all are alike there is nothing to tell."""
    names = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(3)]
    images = dict(zip(names, smooth_images(len(names)), strict=True))
    report, printed = run_audit(run_command, write(tmp_path / "alike", images), tmp_path / "out")
    assert report["usual_size"] == {"pixels": [128, 128], "images": report["images"]}
    assert "pixels" not in printed

    images |= {f"train/b/{i}.png": images[f"train/b/{i}.png"][:100] for i in range(2)}
    report, printed = run_audit(run_command, write(tmp_path / "mixed", images), tmp_path / "out")
    assert report["usual_size"]["images"] == {"train": {"a": 3, "b": 1}, "test": {"a": 3, "b": 3}}
    assert re.search(r"^  of 128x128 pixels +3 +1 +4 +67%$", printed, re.MULTILINE)


def test_a_copy_of_a_copy_is_no_direct_twin(tmp_path: Path) -> None:
    u, v = smooth_images(2).astype(float)
    chain = [np.round((1 - step) * u + step * v).astype(np.uint8) for step in (0, 0.12, 0.24)]
    names = ("test/a/0.png", "train/a/1.png", "train/a/2.png")
    found = find_duplicates(read_collection(str(write(tmp_path, dict(zip(names, chain, strict=True))))), 0.98)
    assert len(set(found.groups.tolist())) == 1
    assert [pair.correlation > 0.98 for pair in found.pairs] == [False, True]
    assert found.pairs[1].first == 0
    assert {found.pairs[0].first, found.pairs[0].second} == {0, 2}


def test_a_zip_a_prepared_set_and_the_folder_have_the_same_near_duplicates(
    planted: Path, tmp_path: Path, run_command: Command
) -> None:
    prepare(planted, tmp_path / "prepared", size=128)
    archive = shutil.make_archive(str(planted), "zip", planted)
    for i, source in enumerate((archive, tmp_path / "prepared")):
        report, _ = run_audit(run_command, source, tmp_path / f"out{i}")
        assert groups(report["near_duplicates"]) == NEAR
        assert groups(report["identical"]) == IDENTICAL
    assert report["identical"]["compared"] == "pixels"
    assert set(report["images"]) == {"train", "test"}


def test_class_folders_without_a_split_cross_nothing(planted: Path, tmp_path: Path, run_command: Command) -> None:
    report, printed = run_audit(run_command, planted / "Training", tmp_path / "out")
    assert set(report["images"]) == {"all"}
    assert (report["near_duplicates"]["groups"], report["near_duplicates"]["crossing"]) == (2, 0)
    assert report["crossing_pairs"] == []
    assert "another split" not in printed
    assert len(read_sheet(tmp_path / "out")) < 100


def test_splits_and_classes_are_what_the_folders_are_called(tmp_path: Path, run_command: Command) -> None:
    images = smooth_images(3)
    names = [
        f"deep/down/{split}/{label}/{i}.JPEG" for split in ("train", "val", "test") for i, label in enumerate("xyz")
    ]
    source = write(tmp_path / "scans", dict(zip(names, np.tile(images, (3, 1, 1, 1)), strict=True)))
    (source / "deep" / "README.md").write_text("notes are no images")
    report, _ = run_audit(run_command, source, tmp_path / "out")
    assert report["images"] == {split: {"x": 1, "y": 1, "z": 1} for split in ("train", "val", "test")}
    assert report["near_duplicates"]["crossing"] == 3
    for i, group in enumerate(report["near_duplicates"]["members"]):
        expected = {Path(name).relative_to("deep/down").as_posix() for name in names[i::3]}
        assert {image["name"] for image in group["images"]} == expected


def test_the_threshold_is_an_option(planted: Path, tmp_path: Path, run_command: Command) -> None:
    strict, _ = run_audit(run_command, planted, tmp_path / "out", "--threshold", 0.9999)
    assert strict["parameters"] == {"threshold": 0.9999, "side": 64}
    # What loses grey levels on the way is no longer a copy.
    lost = {group for group in NEAR if re.search("recompressed|was meningioma", str(group))}
    assert groups(strict["near_duplicates"]) == NEAR - lost


def test_broken_files_are_named_and_left_out(planted: Path, tmp_path: Path, run_command: Command) -> None:
    (planted / "Training" / GLIOMA / "3.png").write_bytes(b"")
    (planted / "Testing" / GLIOMA / "notes.jpg").write_text("no image")
    report, printed = run_audit(run_command, planted, tmp_path / "out")
    assert report["broken"] == {
        f"Testing/{GLIOMA}/notes.jpg": "is not a JPEG, PNG, TIFF, BMP or WEBP image",
        f"Training/{GLIOMA}/3.png": "is empty",
    }
    assert f"left out: Training/{GLIOMA}/3.png is empty" in printed
    assert groups(report["near_duplicates"]) == NEAR


def test_the_contact_sheet_shows_each_pair_side_by_side(planted: Path, tmp_path: Path, run_command: Command) -> None:
    run_audit(run_command, planted, tmp_path / "out")
    found = find_duplicates(read_collection(str(planted)), 0.98)
    sheet = read_sheet(tmp_path / "out")
    for pair in found.pairs:
        halves = [
            np.asarray(Image.fromarray(found.collection.thumbnails[place, ..., 0]).resize((128, 128)))
            for place in (pair.first, pair.second)
        ]
        assert contains(sheet, np.hstack(halves))


def read_sheet(out: Path) -> np.ndarray:
    with Image.open(out / "crossing-pairs.png") as sheet:
        return np.asarray(sheet.convert("L"))


def contains(sheet: np.ndarray, part: np.ndarray) -> bool:
    height, width = part.shape
    corners = np.argwhere(sheet[: -height + 1, : -width + 1] == part[0, 0])
    return any(np.array_equal(sheet[y : y + height, x : x + width], part) for y, x in corners)


def test_a_contact_sheet_has_an_end() -> None:
    heights = []
    for count in (MOST_PAIRS, MOST_PAIRS + 30):
        every = 2 * count
        images = make_thumbnails(np.repeat(smooth_images(1), every, axis=0))
        names, splits = tuple(map(str, range(every))), ("train", "test") * count
        labels, sizes = ("a",) * every, ((64, 64),) * every
        copies = Collection("copies", images, ("same",) * every, "pixels", names, labels, splits, sizes, (), labels)
        found = find_duplicates(copies, 0.98)
        assert len(found.pairs) > MOST_PAIRS
        heights.append(contact_sheet(found).height)
    assert heights[0] == heights[1]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "holds no image files"),
        (["a/1.png", "2.png"], "2.png and a/1.png lie at different depths; arrange them as [SPLIT/]CLASS/image or"),
        (["train/a/1.png", "test/2.png"], "test/2.png and train/a/1.png lie at different depths"),
        (["a/train/1.png", "b/train/2.png"], "several folders hold splits such as train (a, b)"),
        (["train/1.png", "test/2.png"], "test, train hold no folders of classes"),
        (["train/a/1.png", "extra/a/2.png"], "has extra beside the folders of splits; move those out"),
        (["train/a/1.png", "Training/a/2.png"], "Training and train are the same split; merge the folders"),
        (["train/a/1.png", "test/A/2.png"], "the classes A and a differ in case alone; rename one of them"),
        (["a/1.png", "b/x.png", "b/X.png"], "the files b/X.png and b/x.png differ in case alone"),
    ],
)
def test_another_layout_is_one_line(names: list[str], problem: str, tmp_path: Path, run_command: Command) -> None:
    (tmp_path / "scans").mkdir()
    write(tmp_path / "scans", dict.fromkeys(names, smooth_images(1)[0]))
    code, _, err = run_command("audit", tmp_path / "scans", "--out", tmp_path / "out")
    assert code == 2
    assert err.startswith(f"error: {tmp_path / 'scans'}: ")
    assert problem in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_line(planted: Path, tmp_path: Path, run_command: Command) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "1.png").write_bytes(b"")
    for words, problem in [
        (
            [tmp_path / "nowhere"],
            "nowhere: no such file or folder; give a folder or a zip of images",
        ),
        ([tmp_path / "file"], "file: is neither a zip nor a folder"),
        ([tmp_path / "broken"], "broken: no image can be read; the first, 1.png, is empty"),
        ([planted, "--threshold", "1"], "--threshold 1.0: must be above 0 and below 1"),
        ([planted, "--out", tmp_path / "file" / "out"], "out: can't be written: Not a directory; choose another"),
    ]:
        code, _, err = run_command("audit", *words)
        assert code == 2
        assert re.fullmatch(rf"error: .*{re.escape(problem)}.*\n", err)


@pytest.mark.slow
def test_the_phantom_has_no_copies(tmp_path: Path, run_command: Command) -> None:
    report, _ = run_audit(run_command, "phantom", tmp_path)
    assert report["near_duplicates"]["groups"] == 0
