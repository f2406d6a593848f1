"""From a folder of somebody's own to scores, predictions and figures: each layout and each format, on made-up scans."""

import csv
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from planted import smooth_images
from scan_files import write_dicom, write_matlab, write_nifti, write_picture
from tiny import TINY

from figures.__main__ import main as figures
from jaxcnn.data.__main__ import main as data
from jaxcnn.models import MODELS
from jaxcnn.runs.folder import Run, read_data, read_predictions
from train.__main__ import main as train

SIZE = 50


def scans(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Smooth random images of 60x70 pixels; they resemble nothing, and one another as little."""
    return (image[:60, :70, 0] for image in smooth_images(count, seed=seed, size=80))


def nickparvar_like(folder: Path) -> Path:
    """Four classes under other names than the archive's, in a zip: JPEG, some of it as .jfif."""
    labels = ("glioma", "meningioma", "notumor", "pituitary")
    for split, count in (("Training", 8), ("Testing", 3)):
        for (label, i), image in zip(itertools.product(labels, range(count)), scans(4 * count, count), strict=True):
            write_picture(folder / split / label / f"Tr-{i}.{('jpg', 'jfif')[i % 2]}", image, "JPEG")
    return Path(shutil.make_archive(str(folder), "zip", folder))


def yes_no(folder: Path) -> Path:
    """Two classes and no split: PNG with 8 and 16 bits, BMP, WebP, TIFF with floats."""
    for (label, i), image in zip(itertools.product(("yes", "no"), range(16)), scans(32), strict=True):
        suffix, values = [("png", image), ("png", image.astype(np.uint16) * 16), ("bmp", image), ("webp", image)][i % 4]
        write_picture(folder / label / f"{i}.{suffix}", values)
    write_picture(folder / "yes/17.tif", next(scans(1, seed=9)).astype(np.float32))
    return folder


def figshare_like(folder: Path) -> Path:
    """MATLAB files in numbered folders, three of each patient, who has one kind of tumour; and the list of folds."""
    for i, image in enumerate(scans(54)):
        patient = i // 3
        write_matlab(folder / f"{i // 30}" / f"{i + 1}.mat", image.astype(np.int16), patient % 3 + 1, f"MR{patient}")
    (folder / "cvind.mat").write_bytes(b"folds")
    return folder


def dicom_folder(folder: Path) -> Path:
    """CLASS/PATIENT/SERIES/image without endings."""
    for (label, patient, i), image in zip(itertools.product("ab", range(8), range(3)), scans(48), strict=True):
        write_dicom(folder / label / f"{label}{patient}" / "axial" / f"IM{i}", image.astype(np.uint16) * 9)
    return folder


def listed_volumes(folder: Path) -> Path:
    """NIfTI volumes with a table of labels, splits and patients, one of whom has two volumes."""
    rows = [("path", "label", "split", "patient")]
    volumes = np.stack(list(scans(30))).reshape(10, 3, 60, 70)
    for i, volume in enumerate(volumes):
        write_nifti(folder / "nii" / f"case{i}.nii.gz", volume.transpose(2, 1, 0) + 200)
        rows.append((f"nii/case{i}.nii.gz", ("low", "high")[i % 2], "test" if i > 7 else "train", f"P{max(i, 2) // 2}"))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "labels.csv"


# The source, how many images there are, and options of training.
SETS: dict[str, tuple[Callable[[Path], Path], int, tuple[str, ...]]] = {
    "nickparvar-like": (nickparvar_like, 44, ()),
    "yes-no": (yes_no, 33, ("--test-fraction", "0.3")),
    "figshare-like": (figshare_like, 54, ()),
    "dicom": (dicom_folder, 48, ("--folds", "3", "--fold", "2")),
    "nifti": (listed_volumes, 30, ()),
}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command, which must succeed; gives what it prints."""

    def call(main: Callable[[], None], *words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        with pytest.raises(SystemExit) as error:
            main()
        captured = capsys.readouterr()
        assert error.value.code == 0, captured.err
        return captured.out

    return call


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETS)
def test_from_a_folder_to_scores_predictions_and_figures(
    kind: str, tmp_path: Path, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, count, options = SETS[kind]
    source = make(tmp_path / "own")
    command(data, "prepare", source, "--out", tmp_path / "data", "--size", SIZE)
    run = Run(tmp_path / "run")
    words = ["--data", tmp_path / "data", "--run-dir", run.folder, "--batch-size", "8"]
    monkeypatch.setitem(MODELS, "tiny", TINY)
    command(train, "tiny", *words, "--epochs", "1", "--validation-fraction", "0.2", *options)

    splits = {name: read_predictions(run, name) for name in ("train", "validation", "test")}
    classes = splits["test"].classes
    assert sum(len(of.labels) for of in splits.values()) == count
    assert all(len(np.unique(of.labels)) == len(classes) for of in splits.values())
    described = read_data(run)
    if kind in ("figshare-like", "dicom", "nifti"):
        # So many patients in all: none is in two splits.
        assert sum(described["patients"].values()) == {"figshare-like": 18, "dicom": 16, "nifti": 4}[kind]
        # Resampled as patients, not as images.
        assert len(np.unique(splits["test"].groups)) == described["patients"]["test"]

    scores = json.loads(command(train, "evaluate", run.folder, "--json", "--resamples", "50"))["runs"][0]
    assert list(scores["classes"]) == list(classes)
    found = json.loads(command(train, "evaluate", run.folder, "--data", source, "--json", "--resamples", "50"))
    seen = sum(len(splits[name].labels) for name in ("train", "validation"))
    assert found["runs"][0]["copies_of_training_images"] == seen

    place = source.parent if source.suffix == ".csv" else source
    predictions = command(train, "predict", run.folder, place, "--csv", tmp_path / "predictions.csv")
    assert len(predictions.splitlines()) == 1 + count
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == count

    monkeypatch.chdir(tmp_path)
    for figure in ("learning-curves", "confusion-matrices", "roc-curves", "report"):
        command(figures, figure, run.folder)
    for figure in ("confusion-matrices", "roc-curves"):
        command(figures, figure, run.folder, "--data", source.stem, "--out", tmp_path / f"{figure}.png")
    (report,) = run.figures.glob("*.html")
    assert "on other data sets" in report.read_text("utf-8")
    assert f'<th scope="row">{source.stem} without copies of training images</th>' in report.read_text("utf-8")
