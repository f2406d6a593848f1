"""`python -m jaxcnn.data prepare`: all of the archive appears on the disk, exactly, or nothing does."""

import os
import re
import resource
import shutil
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from planted import smooth_images
from scan_files import encoded, write_dicom, write_matlab, write_nifti, write_picture

from jaxcnn.data import labelled_scans
from jaxcnn.data.image import to_square
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.labelled_scans import BrainTumorMri
from jaxcnn.data.load import load_dataset
from jaxcnn.data.prepare import ConflictError, prepare
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.errors import UserError

SIZE = 32
LAYOUT = "brain_tumor_classification"
Command = Callable[..., tuple[int, str, str]]


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_image_comes_back_as_pillow_makes_it(scans: Path, tmp_path: Path) -> None:
    prepare(scans, tmp_path / "out", size=SIZE)
    dataset = load_dataset(str(tmp_path / "out"))
    for folder, split in (("Training", dataset.splits["train"]), ("Testing", dataset.splits["test"])):
        names = [f"{folder}/{label}/scan ({i}).jpg" for label in CLASSES for i in (1, 2, 3)]
        assert list(split.names) == names
        np.testing.assert_array_equal(split.labels, np.repeat(np.arange(4), 3))
        for name, image in zip(split.names, split.images, strict=True):
            original = Image.open(scans / LAYOUT / name)
            original.draft("L", None)
            expected = np.asarray(original.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(image[..., 0], expected)


def test_zip_folder_and_inner_folder_give_the_same_bytes(scans: Path, tmp_path: Path) -> None:
    sources = [scans, scans, scans / LAYOUT, zipped(scans), zipped(scans / LAYOUT)]
    written = []
    for i, source in enumerate(sources):
        prepare(source, tmp_path / f"out{i}", size=SIZE)
        written.append(files_below(tmp_path / f"out{i}"))
    assert all(files == written[0] for files in written)


def test_tfds_reads_it_without_this_project_and_without_tensorflow(scans: Path, tmp_path: Path) -> None:
    prepared = prepare(scans, tmp_path, size=SIZE)
    by_name = tfds.data_source(f"brain_tumor_mri/{SIZE}x{SIZE}", data_dir=tmp_path, split="train")
    by_folder = tfds.builder_from_directory(prepared.folder).as_data_source("train")
    assert len(by_name) == len(by_folder) == len(prepared.dataset.splits["train"])
    for i, image in enumerate(prepared.dataset.splits["train"].images):
        np.testing.assert_array_equal(by_name[i]["image"], image)
        np.testing.assert_array_equal(by_folder[i]["image"], image)
    assert by_folder[3]["file_name"] == b"Training/meningioma_tumor/scan (1).jpg"
    assert "tensorflow" not in sys.modules


def test_the_builder_works_as_builders_do(scans: Path, tmp_path: Path) -> None:
    dataset = prepare(scans, tmp_path / "before", size=SIZE).dataset
    builder = BrainTumorMri(dataset=dataset, data_dir=tmp_path)
    builder.download_and_prepare()
    assert builder.info.features["label"].names == list(CLASSES)
    assert builder.info.splits["train"].num_examples == 12
    assert builder.as_data_source("test")[11]["label"] == 3


def test_the_command_prints_the_counts(scans: Path, tmp_path: Path, run_command: Command) -> None:
    (scans / LAYOUT / "Testing/no_tumor/scan (3).jpg").unlink()
    code, out, err = run_command("prepare", scans, "--out", tmp_path / "out", "--size", SIZE)
    assert (code, err) == (0, "")
    assert re.search(r"train +3 +3 +3 +3 +12\ntest +3 +3 +2 +3 +11\n", out)
    assert str(tmp_path / "out/brain_tumor_mri/32x32/2.0.0") in out


def test_no_temporary_folder_stays(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that a process has left that was killed while it prepared the same."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    leftover = tmp_path / ".2.0.0.jaxcnn-tmp-a1b2c3d4"
    (leftover / "brain_tumor_mri").mkdir(parents=True)
    prepare(scans, tmp_path / "out", size=SIZE)
    assert not list((tmp_path / "temporary").iterdir())
    assert not leftover.exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["brain_tumor_mri"]


def test_what_systems_leave_behind_is_ignored(scans: Path, tmp_path: Path) -> None:
    clean = prepare(scans, tmp_path / "clean", size=SIZE).dataset
    place = scans / LAYOUT / "Training"
    for junk in (".DS_Store", "no_tumor/Thumbs.db", "no_tumor/._scan (1).jpg", ".ipynb_checkpoints/scan (1).jpg"):
        (place / junk).parent.mkdir(exist_ok=True)
        (place / junk).write_bytes(b"junk")
    shutil.copytree(scans / LAYOUT, scans / "__MACOSX" / LAYOUT)
    (scans / LAYOUT / "README.txt").write_text("beside the splits, not in them")
    dataset = prepare(zipped(scans), tmp_path / "out", size=SIZE).dataset
    assert dataset.splits["train"].fingerprint() == clean.splits["train"].fingerprint()


# --- Bad input ----------------------------------------------------------------------------------------------------


def damage(name: str, content: bytes) -> Callable[[Path], Path]:
    """Overwrite (or add) one file of the archive."""

    def apply(scans: Path) -> Path:
        (scans / LAYOUT / name).parent.mkdir(exist_ok=True)
        (scans / LAYOUT / name).write_bytes(content)
        return scans

    return apply


def truncate_a_jpeg(scans: Path) -> Path:
    path = scans / LAYOUT / "Testing/no_tumor/scan (1).jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return zipped(scans)


def add_a_bomb(scans: Path) -> Path:
    Image.new("1", (13_500, 13_500)).save(scans / LAYOUT / "Testing/no_tumor/bomb.png")
    return scans


def truncate_the_zip(scans: Path) -> Path:
    path = zipped(scans)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def no_zip(scans: Path) -> Path:
    path = scans / "archive.zip"
    path.write_text("<html>Log in first</html>")
    return path


def entry_named(name: str) -> Callable[[Path], Path]:
    def apply(scans: Path) -> Path:
        path = zipped(scans)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"payload")
        return path

    return apply


def say_of_each_entry(place: int, value: int) -> Callable[[Path], Path]:
    """Change a byte of every entry in the zip's directory."""

    def apply(scans: Path) -> Path:
        path = zipped(scans)
        content = bytearray(path.read_bytes().replace(b"no_tumor", b"no_tum\xe9r"))
        for entry in re.finditer(b"PK\x01\x02", bytes(content)):
            content[entry.start() + place] = value
        path.write_bytes(content)
        return path

    return apply


def write_names_of_other_bytes(scans: Path) -> list[str]:
    """Broken files with names that are no text, or that would steer a terminal; and how they are shown."""
    shown = {b"sc\xe4n.jpg": "sc\\xe4n.jpg", b"\x1b[31m\n.jpg": "\\x1b[31m\\n.jpg"}
    for name in shown:
        Path(os.fsdecode(os.fsencode(scans / LAYOUT / "Training/no_tumor") + b"/" + name)).write_bytes(b"no image")
    return [f"Training/no_tumor/{name}" for name in shown.values()]


def flip_a_bit_in_the_zip(scans: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = scans.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted((scans / LAYOUT).rglob("*.jpg")):
            archive.write(file, file.relative_to(scans))
        member = archive.getinfo(f"{LAYOUT}/Testing/no_tumor/scan (2).jpg")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 200] ^= 1
    path.write_bytes(content)
    return path


def two_archives(scans: Path) -> Path:
    shutil.copytree(scans / LAYOUT, scans / "copy")
    return scans


@pytest.mark.parametrize(
    ("spoil", "names", "problem"),
    [
        (lambda scans: scans / "nowhere", "nowhere", "no such file or folder"),
        (no_zip, "archive.zip", "neither a zip nor a folder"),
        (truncate_the_zip, "scans.zip", "truncated or damaged; download it again"),
        (entry_named("../evil.jpg"), "../evil.jpg", "points outside the zip"),
        (entry_named("Training/../../evil.jpg"), "evil.jpg", "points outside the zip"),
        (entry_named("/etc/evil.jpg"), "/etc/evil.jpg", "points outside the zip"),
        (entry_named("C:\\evil.jpg"), "evil.jpg", "points outside the zip"),
        (two_archives, "brain_tumor_classification, copy", "several folders"),
        (
            damage("Training/metastasis/scan.jpg", b"x"),
            "Training/metastasis/scan.jpg",
            "is not a JPEG, PNG, TIFF, BMP or",
        ),
        (damage("Training/scan.jpg", b"x"), "Training/scan.jpg", "lie at different depths"),
        (
            damage("Training/no_tumor/notes.jpg", b"no image"),
            "Training/no_tumor/notes.jpg",
            "is not a JPEG, PNG, TIFF,",
        ),
        (damage("Testing/no_tumor/scan (2).jpg", b""), "Testing/no_tumor/scan (2).jpg", "is empty"),
        (truncate_a_jpeg, "Testing/no_tumor/scan (1).jpg", "is not a JPEG file, or is damaged"),
        (add_a_bomb, "Testing/no_tumor/bomb.png", "is too large"),
        (flip_a_bit_in_the_zip, "Testing/no_tumor/scan (2).jpg", "is damaged in the zip"),
        (partial(flip_a_bit_in_the_zip, compression=zipfile.ZIP_LZMA), "scan (2).jpg", "is damaged in the zip"),
        (say_of_each_entry(6, 255), "scans.zip", "truncated or damaged; download it again"),  # needs version 25.5
        (say_of_each_entry(9, 8), "scans.zip", "are said to be UTF-8, and aren't; pack the folder again"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    spoil: Callable[[Path], Path], names: str, problem: str, scans: Path, tmp_path: Path, run_command: Command
) -> None:
    source = spoil(scans)
    before = files_below(tmp_path)
    code, _, err = run_command("prepare", source, "--out", tmp_path / "out", "--size", SIZE)
    assert code == 2
    assert err.count("\n") == 1
    assert str(source) in err
    assert names in err
    assert problem in err
    assert files_below(tmp_path) == before
    assert not (tmp_path / "out").exists()


def break_three(scans: Path) -> list[str]:
    names = ["Testing/no_tumor/scan (1).jpg", "Training/glioma_tumor/scan (2).jpg", "Training/no_tumor/notes.jpg"]
    for name, content in zip(names, [b"", b"\xff\xd8\xff", b"no image"], strict=True):
        (scans / LAYOUT / name).write_bytes(content)
    return names


def test_one_pass_finds_all_broken_files(scans: Path, tmp_path: Path, run_command: Command) -> None:
    names = break_three(scans)
    code, _, err = run_command("prepare", scans, "--out", tmp_path / "out", "--size", SIZE)
    assert code == 2
    assert f"{names[0]} is empty, and 2 more files are broken; leave them out with --skip-broken" in err


@pytest.mark.parametrize("spoil", [break_three, write_names_of_other_bytes])
def test_skip_broken_leaves_them_out_and_lists_them(
    spoil: Callable[[Path], list[str]], scans: Path, tmp_path: Path, run_command: Command
) -> None:
    names = sorted(spoil(scans))
    code, out, err = run_command("prepare", scans, "--out", tmp_path / "out", "--size", SIZE, "--skip-broken")
    assert (code, err) == (0, "")
    listed = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert all(line.startswith(f"left out: {name} is ") for line, name in zip(sorted(listed), names, strict=True))
    dataset = load_dataset(str(tmp_path / "out"))
    assert sum(len(split) for split in dataset.splits.values()) == 24 - sum("scan (" in name for name in names)
    assert not set(names) & set(dataset.splits["train"].names + dataset.splits["test"].names)


@pytest.mark.parametrize("pattern", ["Training/*/*.jpg", "Testing/no_tumor/*.jpg"])
def test_a_class_of_broken_files_alone_is_not_skipped(pattern: str, scans: Path, tmp_path: Path) -> None:
    for path in (scans / LAYOUT).glob(pattern):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no usable image of .* is left in the"):
        prepare(scans, tmp_path / "out", size=SIZE, skip_broken=True)
    assert not (tmp_path / "out").exists()


def test_an_encrypted_zip_names_its_first_file(scans: Path, tmp_path: Path) -> None:
    path = zipped(scans)
    content = bytearray(path.read_bytes())
    for entry in re.finditer(b"PK\x01\x02", bytes(content)):
        content[entry.start() + 8] |= 1  # The flag of the central directory.
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"Testing/glioma_tumor/scan \(1\).jpg is damaged in the zip .*encrypted"):
        prepare(path, tmp_path / "out", size=SIZE)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "PATH, --download: give exactly one of them"),
        (["scans", "--download"], "PATH, --download: give exactly one of them"),
        (["scans", "--size", "8"], "--size 8: must be at least 16"),
        (["scans", "--size", "100000"], "24 images of 100000x100000 pixels .* choose a smaller size"),
    ],
)
def test_bad_options(
    options: list[str], problem: str, scans: Path, run_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scans.parent)
    code, _, err = run_command("prepare", *options, "--out", "out")
    assert code == 2
    assert re.fullmatch(f"error: {problem}.*\n", err)
    assert not Path("out").exists()


# --- The place to write to ----------------------------------------------------------------------------------------


def test_what_exists_is_replaced_only_when_asked(scans: Path, tmp_path: Path, run_command: Command) -> None:
    words = ["prepare", scans, "--out", tmp_path / "out", "--size", SIZE]
    assert run_command(*words)[0] == 0
    before = files_below(tmp_path / "out")

    (scans / LAYOUT / "Testing/no_tumor/scan (1).jpg").unlink()
    code, _, err = run_command(*words)
    assert (code, files_below(tmp_path / "out")) == (2, before)
    assert "already exists; replace it with --overwrite" in err

    assert run_command(*words, "--overwrite")[0] == 0
    assert len(load_dataset(str(tmp_path / "out")).splits["test"]) == 11
    assert set(files_below(tmp_path / "out")) == set(before)

    replaced = files_below(tmp_path / "out")
    (scans / LAYOUT / "Testing/no_tumor/scan (2).jpg").write_bytes(b"")
    assert run_command(*words, "--overwrite")[0] == 2
    assert files_below(tmp_path / "out") == replaced


def test_another_size_goes_beside_the_first(scans: Path, tmp_path: Path) -> None:
    small, large = (prepare(scans, tmp_path / "out", size=size) for size in (16, 48))
    assert load_dataset(str(small.folder)).splits["train"].images.shape == (12, 16, 16, 1)
    assert load_dataset(str(large.folder)).splits["train"].images.shape == (12, 48, 48, 1)


def test_an_out_that_cannot_be_written(scans: Path, tmp_path: Path, run_command: Command) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = run_command("prepare", scans, "--out", tmp_path / "file" / "out", "--size", SIZE)
    assert code == 2
    assert re.fullmatch(r"error: .*file/out: can't be written: Not a directory; .*choose another --out\n", err)


def test_a_full_disk_leaves_nothing_behind(scans: Path, tmp_path: Path) -> None:
    before = files_below(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(UserError, match=r"out: can't be written: .*File too large"):
            prepare(scans, tmp_path / "out", size=128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_below(tmp_path) == before


def test_an_interruption_leaves_nothing_behind(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.rglob("*"))
    canonical, calls = labelled_scans._canonical, []

    def interrupted(example: bytes) -> bytes:
        calls.append(example)
        if len(calls) == 15:  # The train split is on the disk by now.
            raise KeyboardInterrupt
        return canonical(example)

    monkeypatch.setattr(labelled_scans, "_canonical", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(scans, tmp_path / "out", size=SIZE)
    assert sorted(tmp_path.rglob("*")) == before


# --- Other data sets ----------------------------------------------------------------------------------------------


def smooth_set(folder: Path, names: list[str]) -> Path:
    for name, image in zip(names, smooth_images(len(names)), strict=True):
        write_picture(folder / name, image[..., 0])
    return folder


def test_classes_are_those_of_the_data_in_natural_order(tmp_path: Path, run_command: Command) -> None:
    labels = ["grade10", "grade2", "Grade1", "none", os.fsdecode("Ästhetik".encode())]
    source = smooth_set(tmp_path / "data", [f"{label}/{i}.png" for label in labels for i in range(2)])
    code, out, _ = run_command("prepare", source, "--out", tmp_path / "out", "--size", SIZE)
    assert (code, "arranged as CLASS/image" in out) == (0, True)
    dataset = load_dataset(str(tmp_path / "out"))
    assert dataset.classes == ("Grade1", "grade2", "grade10", "none", "Ästhetik")
    assert dataset.source == str(tmp_path / "out/labelled_scans/32x32/2.0.0")
    assert [dataset.classes[label] for label in dataset.splits["train"].labels] == [
        name.split("/")[0] for name in dataset.splits["train"].names
    ]
    assert (list(dataset.splits), dataset.splits["train"].patients) == (["train"], None)


@pytest.mark.slow
def test_a_hundred_classes_are_told_one_a_line(tmp_path: Path, run_command: Command) -> None:
    labels = [f"a long name of a class, the {i}th" for i in range(100)]
    source = smooth_set(tmp_path / "data", [f"{label}/{i}.png" for label in labels for i in range(2)])
    code, out, _ = run_command("prepare", source, "--out", tmp_path / "out", "--size", SIZE, "--skip-conflicts")
    assert code == 0
    table = out.splitlines()[out.splitlines().index("arranged as CLASS/image") + 1 :]
    assert table[0].split() == ["split", "train"]
    assert table[100].split() == [*labels[99].split(), "2"]
    smooth_set(source, ["one more/1.png", "one more/2.png"])
    code, _, err = run_command("prepare", source, "--out", tmp_path / "more", "--size", SIZE)
    assert (code, "has 101 classes, such as " in err, "give at most 100" in err) == (2, True, True)


def test_splits_and_patients_come_back(tmp_path: Path, run_command: Command) -> None:
    names = [
        f"{split}/{label}/p{i % 2}/{i}.png" for split in ("train", "Val", "TEST") for label in "ab" for i in range(4)
    ]
    source = smooth_set(tmp_path / "data", [*names, "train/a/unknown/x.png"])
    code, out, _ = run_command("prepare", source, "--out", tmp_path / "out", "--size", SIZE)
    assert code == 0
    assert re.search(r"^split +a +b +total +patients\ntrain +5 +4 +9 +3\nvalidation +4 +4 +8 +2$", out, re.MULTILINE)
    dataset = load_dataset(str(tmp_path / "out"))
    assert list(dataset.splits) == ["train", "validation", "test"]
    for split in dataset.splits.values():
        assert list(split.patients) == [name.split("/")[2] for name in split.names]
        assert split.take(np.array([1])).patients == (split.patients[1],)


def test_every_format_is_prepared_as_its_reader_says(tmp_path: Path) -> None:
    """With the patients that the files name: DICOM's, MATLAB's, and of a volume itself."""
    values = np.random.default_rng(0).integers(0, 900, (40, 50)).astype(np.uint16)
    source = tmp_path / "data"
    for i, label in enumerate(("a", "b")):
        write_dicom(source / label / "IM1", np.roll(values, i), PatientID=f"P{i}")
        write_nifti(source / label / "v.nii.gz", np.random.default_rng(i).integers(300, 900, (20, 30, 2)))
    dataset = prepare(source, tmp_path / "out", size=SIZE, skip_conflicts=True).dataset
    train = dataset.splits["train"]
    assert train.names == (
        *("a/IM1", "a/v.nii.gz#1", "a/v.nii.gz#2"),
        *("b/IM1", "b/v.nii.gz#1", "b/v.nii.gz#2"),
    )
    assert train.patients == ("P0", "a/v.nii.gz", "a/v.nii.gz", "P1", "b/v.nii.gz", "b/v.nii.gz")
    for i in range(6):
        write_matlab(tmp_path / "mat" / f"{i}.mat", np.roll(values, 3 * i).astype(np.int16), i % 3 + 1, f"{i // 2}")
    of_matlab = prepare(tmp_path / "mat", tmp_path / "out2", size=SIZE).dataset
    assert of_matlab.classes == ("glioma", "meningioma", "pituitary")
    assert of_matlab.splits["train"].patients == ("0", "2", "0", "1", "1", "2")
    expected = to_square(to_bytes(np.roll(values, 3).astype(np.int16)), SIZE)
    np.testing.assert_array_equal(of_matlab.splits["train"].images[0], expected)


def test_copies_with_different_labels_are_listed_and_may_be_left_out(tmp_path: Path, run_command: Command) -> None:
    source = smooth_set(tmp_path / "data", [f"{label}/{i}.png" for label in "abc" for i in range(4)])
    for copy, original in (("b/copy.png", "a/0.png"), ("c/copy.png", "b/1.png")):
        shutil.copy(source / original, source / copy)
    words = ["prepare", source, "--out", tmp_path / "out", "--size", SIZE]
    code, out, err = run_command(*words)
    assert (code, err.count("\n"), (tmp_path / "out").exists()) == (2, 1, False)
    assert "a/0.png is a copy of b/copy.png, and one is labelled a, the other b, and 1 more pairs" in err
    assert "--skip-conflicts" in err
    assert [line for line in out.splitlines() if line.startswith("conflict: ")] == [
        "conflict: a/0.png is a, its copy b/copy.png is b",
        "conflict: b/1.png is b, its copy c/copy.png is c",
    ]
    code, out, _ = run_command(*words, "--skip-conflicts")
    assert (code, out.count("is a copy of")) == (0, 4)
    names = load_dataset(str(tmp_path / "out")).splits["train"].names
    assert set(names) == {f"{label}/{i}.png" for label in "abc" for i in range(4)} - {"a/0.png", "b/1.png"}


def test_neighbouring_slices_of_one_patient_may_have_different_labels(tmp_path: Path) -> None:
    """Where a tumour begins the slice above still shows it; of two patients it would be a contradiction."""
    image = smooth_images(1)[0]
    for label, patient in (("no", "p1"), ("yes", "p1")):
        write_picture(tmp_path / "one" / label / patient / "1.png", image[..., 0])
        write_picture(tmp_path / "one" / label / "p2" / "2.png", smooth_images(2, seed=len(label))[1][..., 0])
    assert len(prepare(tmp_path / "one", tmp_path / "out", size=SIZE).dataset.splits["train"]) == 4
    (tmp_path / "one/no/p1").rename(tmp_path / "one/no/p3")
    with pytest.raises(ConflictError, match=r"no/p3/1\.png is a copy of yes/p1/1\.png"):
        prepare(tmp_path / "one", tmp_path / "out2", size=SIZE)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (
            lambda data: smooth_set(data, ["c/only.png"]),
            "c/only.png is the only image of the class c;",
        ),
        (lambda data: shutil.rmtree(data / "b"), "all images are of one class"),
        (
            lambda data: write_dicom(data / "b/report.dcm", np.ones((20, 20), np.uint16), PixelData=None),
            "without pixels",
        ),
        (
            lambda data: write_nifti(data / "b/4d.nii", np.zeros((20, 20, 20, 2))),
            "b/4d.nii is a series of 2 NIfTI",
        ),
        (lambda data: (data / "x.mat").write_bytes(b"x"), "x.mat contains its own label"),
        (lambda data: smooth_set(data, ["a/0.PNG"]), "the files a/0.PNG and a/0.png differ in case alone"),
        (lambda data: smooth_set(data, ["deep/er/0.png"]), "lie at different depths"),
        (
            lambda data: (data / "labels.csv").write_text("path,label,weight\n"),
            "labels.csv has the unknown column",
        ),
        (
            lambda data: (data / "labels.csv").write_text("path,label\na/9.png,a\n"),
            "line 2: a/9.png is not an image file",
        ),
    ],
)
def test_bad_input_of_other_layouts_is_one_line_and_leaves_nothing_behind(
    spoil: Callable[[Path], object], problem: str, tmp_path: Path, run_command: Command
) -> None:
    source = smooth_set(tmp_path / "data", [f"{label}/{i}.png" for label in "ab" for i in range(3)])
    spoil(source)
    code, _, err = run_command("prepare", source, "--out", tmp_path / "out", "--size", SIZE)
    assert (code, err.count("\n"), (tmp_path / "out").exists()) == (2, 1, False)
    assert str(source) in err
    assert problem in err


def test_a_missing_package_is_one_line(tmp_path: Path, run_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    source = smooth_set(tmp_path / "data", [f"{label}/{i}.png" for label in "ab" for i in range(3)])
    write_dicom(source / "a/x.dcm", np.ones((20, 20), np.uint16))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    code, _, err = run_command("prepare", source, "--out", tmp_path / "out", "--size", SIZE)
    assert code == 2
    assert err == (
        "error: DICOM files: need pydicom, which is not installed: pip install -c constraints.txt -e '.[dicom]'\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_names_that_are_no_text_are_prepared(tmp_path: Path) -> None:
    for i, image in enumerate(smooth_images(4)):
        name = os.fsdecode((b"gl\xefome", b"none")[i % 2] + b"/caf\xe9-%d.png" % i)
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(encoded(Image.fromarray(image[..., 0])))
    dataset = prepare(tmp_path / "data", tmp_path / "out", size=SIZE).dataset
    assert dataset.classes == ("gl\\xefome", "none")
    assert dataset.splits["train"].names[0] == "gl\\xefome/caf\\xe9-0.png"
