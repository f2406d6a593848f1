"""`python -m jaxcnn.data audit A B C`: which images of one data set are copies of images of another."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import brighter, recompressed, smooth_images
from scan_files import write_picture

from jaxcnn.data.class_names import ALIASES, agree, meaning

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A; B with two images of A under other names, one of them with another label; C, unrelated but for one."""
    images = smooth_images(12)

    def write(name: str, pictures: dict[str, np.ndarray]) -> Path:
        for path, image in pictures.items():
            write_picture(tmp_path / name / path, image[..., 0])
        return tmp_path / name

    a = write("A", {f"Training/{label}/{i}.png": images[i] for i, label in enumerate(["glioma_tumor", "no_tumor"] * 2)})
    b = write(
        "B",
        {
            "train/notumor/x.png": brighter(images[1]),
            "test/glioma/y.png": recompressed(images[3]),
            "train/glioma/new.png": images[5],
            "test/notumor/new.png": images[6],
        },
    )
    c = write("C", {"yes/1.png": images[0], "yes/2.png": images[8], "no/1.png": images[9]})
    return a, b, c


def test_the_matrix_counts_what_was_planted(sets: tuple[Path, ...], tmp_path: Path, run_command: Command) -> None:
    code, out, err = run_command("audit", *sets, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    rows = {line.split()[1]: line.split()[2:] for line in out.splitlines() if re.match(r"of [ABC] ", line)}
    assert rows == {"A": ["–", "2", "1", "4"], "B": ["2", "–", "0", "4"], "C": ["1", "0", "–", "3"]}
    assert re.search(r"^test/glioma +1 +1 +100%$", out, re.MULTILINE)
    assert re.search(r"^train/glioma +1 +0 +0%$", out, re.MULTILINE)
    # A label may say more than another: that yes is a glioma is no contradiction.
    assert [line for line in out.splitlines() if "labels disagree" in line] == [
        "labels disagree: 1 images are no_tumor in A and glioma in B",
        "labels disagree: 1 images are glioma in B and no_tumor in A",
    ]

    report = json.loads((tmp_path / "out/audit.json").read_text("utf-8"))
    assert [of["images"] for of in report["data_sets"]] == [4, 4, 3]
    by_pair = {(Path(of["of"]).name, Path(of["in"]).name): of for of in report["overlaps"]}
    assert by_pair["B", "A"]["disagreements"] == [
        {"images": ["test/glioma/y.png", "no_tumor/3.png"], "labels": ["glioma", "no_tumor"]}
    ]
    assert by_pair["B", "A"]["by_split_and_class"]["train"]["notumor"] == {"images": 1, "copied": 1}
    (pair,) = by_pair["C", "A"]["pairs"]
    assert (pair["images"], pair["correlation"] > 0.98) == (["yes/1.png", "glioma_tumor/0.png"], True)
    assert not (tmp_path / "out/crossing-pairs.png").exists()


def test_a_higher_threshold_finds_fewer(sets: tuple[Path, ...], tmp_path: Path, run_command: Command) -> None:
    _, out, _ = run_command("audit", *sets[:2], "--threshold", 0.99999, "--out", tmp_path / "out")
    assert re.search(r"^of B +1 +– +4$", out, re.MULTILINE)


def test_no_data_set_is_one_line(run_command: Command) -> None:
    code, _, err = run_command("audit")
    assert (code, err.count("\n")) == (2, 1)


def test_names_mean_the_same_however_they_are_written() -> None:
    assert meaning("Glioma_Tumour") == meaning("glioma") == "glioma"
    assert meaning("no tumor") == meaning("notumor") == meaning("Healthy") == "no tumour"
    assert meaning("Grade-2") == meaning("grade 2") != meaning("grade 3")
    assert meaning("ß§") != meaning("§")
    # A name has one meaning.
    names = [name for names in ALIASES.values() for name in names]
    assert len(set(names)) == len(names)


def test_a_tumour_agrees_with_what_says_which() -> None:
    assert agree("yes", "pituitary")
    assert agree("meningioma_tumor", "tumor")
    assert not agree("yes", "no_tumor")
    assert not agree("glioma", "meningioma")
    assert not agree("yes", "grade 2")
