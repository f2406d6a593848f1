"""Which label, split and patient an image has by where it lies, or by a table; whatever is ambiguous is refused.

Nothing is read here, so the files are empty.
"""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from scan_files import dicom_bytes

from jaxcnn.data.layouts import Listing, open_labelled
from jaxcnn.errors import UserError


def touch(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(path: Path) -> Listing:
    with open_labelled(path) as listing:
        return listing


def facts(listing: Listing) -> set[tuple[str, str, str, str]]:
    return {(file.name, file.split, file.label, file.patient) for file in listing.files}


LAYOUTS = {
    "CLASS/image": {("yes/1.jpg", "", "yes", ""), ("yes/2.PNG", "", "yes", ""), ("no/1.jfif", "", "no", "")},
    "SPLIT/CLASS/image": {
        ("Training/a/1.jpg", "Training", "a", ""),
        ("VAL/b/1.tif", "VAL", "b", ""),
        ("testing/a/2.bmp", "testing", "a", ""),
    },
    "CLASS/PATIENT/image": {
        ("a/p1/1.dcm", "", "a", "p1"),
        ("a/p2/1.dcm", "", "a", "p2"),
        ("b/p1/1.dcm", "", "b", "p1"),
    },
    "SPLIT/CLASS/PATIENT/image": {
        ("train/a/p1/1.webp", "train", "a", "p1"),
        ("test/b/p2/1.tiff", "test", "b", "p2"),
    },
    "CLASS/PATIENT/folder/image": {("a/p1/s1/1.nii", "", "a", "p1"), ("b/p2/s9/2.nii.gz", "", "b", "p2")},
    "image, which holds its label": {("one/1.mat", "", "", ""), ("two/2.mat", "", "", "")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", ["", "deep/down/"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_layout_is_found_at_any_depth_in_a_folder_and_in_a_zip(
    layout: str, depth: str, zipped: bool, tmp_path: Path
) -> None:
    source = touch(tmp_path / "data", [f"{depth}{name}" for name, *_ in LAYOUTS[layout]])
    touch(source, ["README.txt", f"{depth}.DS_Store", "__MACOSX/x/1.jpg"])
    if zipped:
        source = Path(shutil.make_archive(str(source), "zip", source))
    listing = listed(source)
    assert listing.layout == layout
    assert facts(listing) == LAYOUTS[layout]
    assert [(of.name, of.reason.startswith("is not an image file (JPEG, ")) for of in listing.left_out] == [
        ("README.txt", True)
    ]


def test_names_as_those_of_the_lgg_data_name_the_patient_and_masks_are_none_of_the_images(tmp_path: Path) -> None:
    names = [
        "a/TCGA_CS_4941_19960909_1.tif",
        "a/TCGA_CS_4941_19960909_1_mask.tif",
        "b/TCGA-DU-5849-2.tif",
        "b/only_mask.tif",
    ]
    listing = listed(touch(tmp_path, names))
    assert {(file.name, file.patient) for file in listing.files} == {
        (names[0], "TCGA_CS_4941"),
        (names[2], "TCGA_DU_5849"),
        (names[3], ""),
    }
    assert [(of.name, of.reason) for of in listing.left_out] == [(names[1], "is the mask of the image beside it")]


def test_the_folds_of_the_set_on_figshare_are_no_image(tmp_path: Path) -> None:
    listing = listed(touch(tmp_path, ["x/1.mat", "x/2.mat", "cvind.mat"]))
    assert [file.name for file in listing.files] == ["1.mat", "2.mat"]
    assert [(of.name, of.reason) for of in listing.left_out] == [("cvind.mat", "is a list of folds, not an image")]


def test_dicom_files_are_found_without_an_ending_and_the_index_is_none(tmp_path: Path) -> None:
    import numpy as np

    content = dicom_bytes(np.zeros((20, 20), np.uint16))
    for name in ("a/p/IM1", "b/q/1.2.840.1", "b/q/DICOMDIR"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert [file.name for file in listed(tmp_path).files] == ["a/p/IM1", "b/q/1.2.840.1"]


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_names_that_are_no_text_work(tmp_path: Path) -> None:
    for name in (b"gl\xefome/caf\xe9.png", b"none/\xe9t\xe9.png"):
        path = Path(str(tmp_path), os.fsdecode(name))
        path.parent.mkdir()
        path.touch()
    assert facts(listed(tmp_path)) == {
        ("gl\\xefome/caf\\xe9.png", "", "gl\\xefome", ""),
        ("none/\\xe9t\\xe9.png", "", "none", ""),
    }


# --- Tables -------------------------------------------------------------------------------------------------------


def with_table(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    touch(folder, ["x/1.png", "x/2.png", "3.png", "notes.txt"])
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


FOUND = {("x/1.png", "train", "a", "p1"), ("x/2.png", "TEST", "b", ""), ("3.png", "train", "b", "p2")}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "path,label,split,patient\nx/1.png,a,train,p1\nx/2.png,b,TEST,\n3.png,b,train,p2\n"),
        ("labels.csv", "Patient ; Split;LABEL;path\r\np1;train;a;x\\1.png\r\n;TEST; b;x/2.png\r\n\r\np2;train;b;3.png"),
        (
            "labels.tsv",
            "\ufeffpath\tlabel\tsplit\tpatient\nx/1.png\ta\ttrain\tp1\nx/2.png\tb\tTEST\t\n3.png\tb\ttrain\tp2",
        ),
        ("labels.csv", 'path,label,split,patient\n"x/1.png","a","train","p1"\nx/2.png,b,TEST,\n./3.png,b,train,p2\n'),
    ],
)
def test_a_table_is_read_by_itself_in_a_folder_and_in_a_zip(name: str, text: str, tmp_path: Path) -> None:
    folder = with_table(tmp_path / "data", text, name)
    for source in (folder / name, folder, Path(shutil.make_archive(str(folder), "zip", folder))):
        listing = listed(source)
        assert facts(listing) == FOUND
        assert (listing.layout, [of.name for of in listing.left_out]) == (f"the table {name}", ["notes.txt"])


def test_what_a_table_does_not_list_is_left_out_and_said(tmp_path: Path) -> None:
    listing = listed(with_table(tmp_path, "path,label\nx/1.png,a\nx/2.png,b\n"))
    assert facts(listing) == {("1.png", "", "a", ""), ("2.png", "", "b", "")}
    assert ("3.png", "is not listed in labels.csv") in [(of.name, of.reason) for of in listing.left_out]


def test_a_table_without_these_columns_is_a_file_like_others(tmp_path: Path) -> None:
    folder = touch(tmp_path, ["a/1.png", "b/1.png"])
    (folder / "metadata.csv").write_text("name,age\nx,7\n")
    listing = listed(folder)
    assert (listing.layout, [of.name for of in listing.left_out]) == ("CLASS/image", ["metadata.csv"])


def test_the_bytes_of_a_table_may_be_no_text(tmp_path: Path) -> None:
    folder = touch(tmp_path, [os.fsdecode(b"caf\xe9.png"), "b.png"])
    (folder / "labels.csv").write_bytes(b"path,label,patient\ncaf\xe9.png,gl\xefome,Andr\xe9\nb.png,none,\n")
    assert facts(listed(folder)) == {("caf\\xe9.png", "", "gl\\xefome", "Andr\\xe9"), ("b.png", "", "none", "")}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "path,label,age\nx/1.png,a,7\n",
            "labels.csv has the unknown column 'age'; use only path, label, split,",
        ),
        ("path,label,label\nx/1.png,a,b\n", "labels.csv names a column twice"),
        ("path,label\n", "labels.csv lists no images"),
        ("path,label\nx/1.png\n", "labels.csv, line 2: has 1 columns, the first line has 2"),
        ("path,label\nx/1.png,a\nx/9.png,a\n", "labels.csv, line 3: x/9.png is not an image file there"),
        ("path,label\nnotes.txt,a\n", "labels.csv, line 2: notes.txt is not an image file there"),
        ("path,label\n../1.png,a\n", "line 2: the path ../1.png points outside the table's folder"),
        ("path,label\n/etc/1.png,a\n", "line 2: the path /etc/1.png points outside"),
        ("path,label\nC:\\1.png,a\n", "line 2: the path C:\\1.png points outside"),
        ("path,label\nx/1.png,a\nx/1.png,b\n", "line 3: lists x/1.png again, after line 2; keep one"),
        ("path,label\nx/1.png,\n", "line 2: has no label for x/1.png"),
        ("path,label,split\nx/1.png,a,dev\n", "labels.csv has the unknown split 'dev' in line 2; use one of train, "),
    ],
)
def test_a_table_that_is_wrong_is_told_where(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        listed(with_table(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert problem in str(error.value)


def test_other_ways_to_name_no_table(tmp_path: Path) -> None:
    with_table(tmp_path, "path,label\nx/1.png,a\n")
    with_table(tmp_path, "path,label\nx/1.png,a\n", "x/other.csv")
    (tmp_path / "plain.csv").write_text("name,class\n")
    for source, problem in [
        (tmp_path, "holds several tables of labels (labels.csv, x/other.csv); give the one to use"),
        (tmp_path / "plain.csv", "plain.csv has no column path"),
        (tmp_path / "nowhere.csv", "nowhere.csv: no such file; give a table with the columns path and label"),
    ]:
        with pytest.raises(UserError) as error:
            listed(source)
        assert problem in str(error.value)
    assert len(listed(tmp_path / "labels.csv").files) == 1


def test_files_with_and_without_a_label_of_their_own_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a/1.mat contains its own label and b/1.png doesn't; keep one kind of file"):
        listed(touch(tmp_path, ["a/1.mat", "b/1.png"]))
