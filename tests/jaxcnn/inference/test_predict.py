"""python -m train predict: what a user gets for image files, whichever way they are named, and for what is no image."""

import csv
import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from random_run import random_trained, save_random_run
from scan_files import write_dicom, write_nifti, write_picture

import jaxcnn.inference.predict
from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.load import load_dataset
from jaxcnn.data.prepare import prepare
from jaxcnn.data.readers.table import NO_IMAGE
from jaxcnn.inference.overlay import draw_overlay
from jaxcnn.inference.trained import compile_with_weights, load_trained
from jaxcnn.runs.folder import open_run, read_predictions
from train.__main__ import main

SIZE = 64
MODEL = SimpleCNN(
    stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6, dropout=0.0
)


@pytest.fixture(scope="module")
def trained():
    return random_trained(MODEL, SIZE)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return save_random_run(tmp_path_factory.mktemp("runs") / "random", trained)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Five images of several kinds, two of them of the same name, beside files that are none."""
    folder = tmp_path_factory.mktemp("input") / "scans"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    shapes = {
        "a.png": (64, 64),
        "b.jpg": (90, 70, 3),
        "c.JPEG": (40, 300),
        "more/a.png": (70, 64),
        "more/d.jpg": (99, 99),
    }
    for name, shape in shapes.items():
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".DS_Store").write_text("left by the system")
    (folder / "._a.png").write_text("left by the system")
    return folder


NAMES = ("a.png", "b.jpg", "c.JPEG", "more/a.png", "more/d.jpg")


@pytest.fixture
def predict(monkeypatch, capsys, run):
    """Run the command with these words after the run; give the exit code, stdout and stderr."""

    def call(*words, run=run):
        monkeypatch.setattr(sys, "argv", ["train", "predict", str(run), *map(str, words)])
        with pytest.raises(SystemExit) as error:
            main()
        captured = capsys.readouterr()
        return error.value.code, captured.out, captured.err

    return call


def grey_square(path):
    """By Pillow, of a JPEG the luma that it stores."""
    picture = Image.open(path)
    picture.draft("L", None)
    return np.asarray(picture.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def expected_probabilities(trained, path):
    """By Pillow, the model, and the definition of softmax."""
    images = jnp.asarray(grey_square(path).astype(np.float32) / 255)[None, :, :, None]
    (logits,) = np.asarray(MODEL.apply(trained.variables, images, train=False), np.float64)
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.slow
def test_the_table_gives_what_the_model_says_of_every_image_in_a_folder(predict, trained, scans):
    code, out, err = predict(scans)
    assert (code, err) == (0, f"left out: {scans / 'notes.txt'} {NO_IMAGE}\n")
    header, *rows = (line.split() for line in out.splitlines())
    assert header == ["image", "class", *CLASSES]
    assert [row[0] for row in rows] == [str(scans / name) for name in NAMES]
    for (path, label, *numbers), line in zip(rows, out.splitlines()[1:], strict=True):
        expected = expected_probabilities(trained, path)
        assert label == CLASSES[expected.argmax()]
        np.testing.assert_allclose(np.array(numbers, float), expected, atol=0.00051)
        assert len(line) == len(out.splitlines()[0])


@pytest.mark.slow
def test_the_json_document_gives_the_same_in_full(predict, trained, scans, run):
    code, out, err = predict(scans, "--json")
    assert (code, err) == (0, f"left out: {scans / 'notes.txt'} {NO_IMAGE}\n")
    document = json.loads(out)
    assert (document["run"], document["epoch"], document["skipped"]) == (str(run), 2, [])
    assert document["left_out"] == [{"path": str(scans / "notes.txt"), "reason": NO_IMAGE}]
    assert document["classes"] == list(CLASSES)
    assert [image["path"] for image in document["images"]] == [str(scans / name) for name in NAMES]
    for image in document["images"]:
        assert list(image) == ["path", "class", "probabilities"]
        assert list(image["probabilities"]) == list(CLASSES)
        found = np.array(list(image["probabilities"].values()))
        np.testing.assert_allclose(found, expected_probabilities(trained, image["path"]), rtol=1e-4)
        assert image["class"] == CLASSES[found.argmax()]


@pytest.mark.slow
def test_with_flips_a_scan_and_its_mirror_image_get_the_mean_of_both_and_one_map(predict, trained, tmp_path):
    run = save_random_run(tmp_path / "run", dataclasses.replace(trained, tta="flip"))
    scan = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE), np.uint8)
    for name, pixels in (("a", scan), ("b", scan[:, ::-1])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    _, out, _ = predict(*files, "--json", "--saliency", tmp_path / "maps", run=run)
    answers = json.loads(out)["images"]
    expected = np.mean([expected_probabilities(trained, file) for file in files], axis=0)
    for answer in answers:
        np.testing.assert_allclose(list(answer["probabilities"].values()), expected, rtol=1e-4)
    one, other = (np.asarray(Image.open(answer["saliency"]), int)[:, 3 * SIZE :] for answer in answers)
    np.testing.assert_allclose(one, other[:, ::-1], atol=2)


def test_a_classifier_that_was_saved_before_there_were_views_has_one(run, tmp_path):
    older = Path(shutil.copytree(run / "best", tmp_path / "best"))
    manifest = json.loads((older / "manifest.json").read_text("utf-8"))
    assert manifest.pop("tta") == "none"
    (older / "manifest.json").write_text(json.dumps(manifest))
    assert load_trained(older).tta == "none"


def test_files_come_in_the_order_given_and_keep_the_path_given(predict, scans, monkeypatch):
    monkeypatch.chdir(scans)
    words = ("more/a.png", "a.png", "more", "a.png")
    code, out, _ = predict(*words, "--json")
    assert code == 0
    paths = [image["path"] for image in json.loads(out)["images"]]
    assert paths == ["more/a.png", "a.png", "more/a.png", "more/d.jpg", "a.png"]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_are_of_one_size_and_change_nothing(predict, scans, monkeypatch, batch_size):
    shapes = set()

    def compile_and_watch(function, members):
        return compile_with_weights(lambda *given: shapes.add(given[1].shape) or function(*given), members)

    monkeypatch.setattr(jaxcnn.inference.predict, "compile_with_weights", compile_and_watch)
    _, out, _ = predict(scans, "--json", "--batch-size", batch_size)
    # On a CPU the two halves of a batch are computed side by side.
    assert shapes == {(-(-min(batch_size, 5) // 2), SIZE, SIZE, 1)}
    found = [list(image["probabilities"].values()) for image in json.loads(out)["images"]]
    monkeypatch.undo()
    _, out, _ = predict(scans, "--json")
    whole = [list(image["probabilities"].values()) for image in json.loads(out)["images"]]
    np.testing.assert_allclose(found, whole, rtol=1e-4)


def test_what_is_no_image_is_named_and_skipped_and_the_rest_is_answered(predict, scans, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "truncated.jpg").write_bytes((scans / "b.jpg").read_bytes()[:-200])
    words = [scans / "a.png", tmp_path / "nowhere.png", tmp_path / "truncated.jpg", scans / "notes.txt"]
    words += [tmp_path / "empty", scans / "b.jpg"]
    code, out, err = predict(*words)
    assert code == 2
    assert [line.split()[0] for line in out.splitlines()] == ["image", str(scans / "a.png"), str(scans / "b.jpg")]
    problems = [
        "can't be read (No such file or directory)",
        "is not a JPEG file, or is damaged",
        "is not an image file (JPEG, PNG, TIFF, BMP, WebP, DICOM, NIfTI, MATLAB)",
        "holds no",
    ]
    for path, problem, line in zip(words[1:5], problems, err.splitlines(), strict=True):
        assert line.startswith(f"error: {path} {problem}")
        assert line.endswith("; skipped")

    code, out, again = predict(*words, "--json", "--batch-size", "2")
    assert (code, again) == (2, err)
    document = json.loads(out)
    assert [image["path"] for image in document["images"]] == [str(words[0]), str(words[5])]
    assert [skipped["path"] for skipped in document["skipped"]] == [str(path) for path in words[1:5]]


@pytest.mark.slow
def test_all_formats_in_a_folder_or_a_zip_are_answered_and_the_rest_is_counted(predict, tmp_path):
    """Among them a series of DICOM files without an ending, and a volume, whose slices get a line each."""
    folder = tmp_path / "study"
    for number in (10, 9):  # IM9 comes before IM10.
        write_dicom(folder / "series" / f"IM{number}", np.full((40, 50), 7 * number, np.uint16))
    write_nifti(folder / "volume.nii.gz", np.random.default_rng(0).integers(100, 900, (40, 30, 3)))
    write_picture(folder / "scan.jfif", np.full((50, 60), 90, np.uint8))
    write_picture(folder / "photo.bmp", np.full((50, 60), 90, np.uint8))
    (folder / "report.pdf").write_bytes(b"%PDF")
    archive = shutil.make_archive(str(folder), "zip", folder)
    answers = []
    for source in (str(folder), archive):
        code, out, err = predict(source, "--json", "--batch-size", "4")
        assert (code, err) == (0, f"left out: {source}/report.pdf {NO_IMAGE}\n")
        images = json.loads(out)["images"]
        answers.append([list(image["probabilities"].values()) for image in images])
        inside = ["photo.bmp", "scan.jfif", "series/IM9", "series/IM10"]
        slices = [f"volume.nii.gz#{number}" for number in (1, 2, 3)]
        assert [image["path"] for image in images] == [f"{source}/{name}" for name in (*inside, *slices)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.slow
def test_the_csv_holds_every_image_with_all_digits(predict, scans, tmp_path):
    path = tmp_path / "out" / "all.csv"
    _, out, _ = predict(scans, tmp_path / "nowhere.png", "--json", "--csv", path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "class", *CLASSES]
    for row, image in zip(rows[1:], json.loads(out)["images"], strict=True):
        assert row[:2] == [image["path"], image["class"]]
        np.testing.assert_array_equal(np.array(row[2:], np.float32), np.float32(list(image["probabilities"].values())))
    (tmp_path / "file").touch()
    code, _, err = predict(scans / "a.png", "--csv", tmp_path / "file" / "all.csv")
    assert (code, "all.csv: can't be written: File exists" in err) == (2, True)


@pytest.mark.slow
def test_of_many_classes_the_table_shows_the_best_three(predict, tmp_path, scans):
    classes = tuple(f"a class with a long name, number {place}" for place in range(40))
    trained = random_trained(dataclasses.replace(MODEL, classes=40), SIZE)
    run = save_random_run(tmp_path / "run", dataclasses.replace(trained, classes=classes))
    _, out, _ = predict(scans, run=run)
    assert max(map(len, out.splitlines())) < 3 * 50 + max(len(str(scans / name)) for name in NAMES)
    _, document, _ = predict(scans, "--json", run=run)
    for line, image in zip(out.splitlines()[1:], json.loads(document)["images"], strict=True):
        best = sorted(image["probabilities"].items(), key=lambda item: -item[1])[:3]
        cells = [cell for name, probability in best for cell in (name, f"{probability:.3f}")]
        assert re.split(r"  +", line) == [image["path"], *cells]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_a_name_that_is_no_text_can_be_shown(predict, scans, tmp_path):
    path = Path(str(tmp_path), b"scan-\xff.png".decode(errors="surrogateescape"))
    path.write_bytes((scans / "a.png").read_bytes())
    code, out, _ = predict(tmp_path)
    assert code == 0
    assert "scan-\\xff.png" in out
    code, out, _ = predict(tmp_path, "--json")
    assert json.loads(out)["images"][0]["path"] == str(path)


def test_wrong_input_is_told_in_one_line(predict, scans, tmp_path):
    baseline = save_random_run(tmp_path / "baseline", random_trained(MODEL, SIZE))
    (baseline / "best").rename(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for words, options, message in [
        ((), {}, "IMAGE: none is given"),
        ((scans, "--batch-size", "0"), {}, "--batch-size 0: must be at least 1"),
        ((scans,), {"run": tmp_path / "nowhere"}, "no run folder"),
        ((scans,), {"run": baseline}, f"{baseline}: has no network (no best/)"),
        (
            (scans, "--saliency", tmp_path / "file"),
            {},
            f"--saliency {tmp_path / 'file'}: can't be written: File exists",
        ),
    ]:
        code, _, err = predict(*words, **options)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_there_is_a_picture_of_every_image_and_none_takes_the_place_of_another(predict, scans, tmp_path):
    code, out, _ = predict(scans, scans / "a.png", "--json", "--saliency", tmp_path / "out", "--batch-size", "4")
    assert code == 0
    answers = json.loads(out)["images"]
    pictures = [Path(image["saliency"]) for image in answers]
    assert len(set(pictures)) == 6
    assert set(pictures) == set((tmp_path / "out").iterdir())
    for image, picture in zip(answers, pictures, strict=True):
        assert picture.name.startswith(f"{Path(image['path']).stem}-{image['class']}")
        found = np.asarray(Image.open(picture))
        assert found.shape == (3 * SIZE, 2 * 3 * SIZE, 3)
        # On the left is the image as the network sees it.
        grey = grey_square(image["path"])[..., np.newaxis]
        np.testing.assert_array_equal(found[1::3, 1 : 3 * SIZE : 3], np.repeat(grey, 3, axis=-1))
    assert pictures[0].read_bytes() == pictures[5].read_bytes()
    again = predict(scans, scans / "a.png", "--json", "--saliency", tmp_path / "out")[1]
    assert [image["saliency"] for image in json.loads(again)["images"]] == [str(picture) for picture in pictures]


def test_the_colour_is_where_the_map_is():
    image = np.full((8, 8, 1), 0.5)
    saliency = np.zeros((8, 8))
    saliency[2:4, 5:7] = 1
    left, right = np.split(np.asarray(draw_overlay(image, saliency)).astype(int), 2, axis=1)
    assert (left == 128).all()
    changed = (right != left).any(axis=-1)
    expected = np.kron(saliency, np.ones((3, 3))) > 0
    np.testing.assert_array_equal(changed, expected)
    # There it is the brightest colour of the map, through which a little of the image is seen.
    (colour,) = np.unique(right[expected], axis=0)
    np.testing.assert_allclose(colour, 0.4 * 127.5 + 0.6 * 255 * np.array(mpl.colormaps["inferno"](1.0)[:3]), atol=1)


@pytest.mark.slow
def test_a_file_of_the_data_set_gets_the_prediction_that_the_run_holds(predict, tmp_path, monkeypatch, capsys):
    phantom = load_dataset("phantom", max_images=48)
    for folder, split in (("Training", phantom.splits["train"]), ("Testing", phantom.splits["test"])):
        for name, image, label in zip(split.names, split.images, split.labels, strict=True):
            path = tmp_path / "scans" / folder / CLASSES[label] / f"{name.split('/')[-1]}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            # As scans come: of another size and shape than the network's, and compressed.
            Image.fromarray(image[..., 0]).resize((200, 180)).convert("RGB").save(path, quality=80)
    prepare(tmp_path / "scans", tmp_path / "data", size=SIZE)
    words = ["simplecnn", "--data", tmp_path / "data", "--run-dir", tmp_path / "run", "--width", "0.05"]
    words += ["--epochs", "1", "--batch-size", "8", "--normalization", "per-image-z-score"]
    monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
    # As in the tests of training.
    with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 0
    capsys.readouterr()  # What training said.
    held = read_predictions(open_run(tmp_path / "run"), "test")
    monkeypatch.chdir(tmp_path / "scans")
    code, out, _ = predict("Testing", "--json", run=tmp_path / "run")
    assert code == 0
    found = {image["path"]: list(image["probabilities"].values()) for image in json.loads(out)["images"]}
    assert set(found) == set(held.names)
    expected = np.asarray(jax.nn.softmax(held.logits))
    np.testing.assert_allclose([found[name] for name in held.names], expected, rtol=1e-4, atol=1e-6)
