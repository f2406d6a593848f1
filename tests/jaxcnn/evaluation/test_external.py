"""python -m train evaluate RUN --data OTHER: scores on another data set, and which of its images the run has seen."""

import csv
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from planted import recompressed, smooth_images
from random_run import random_trained, save_random_run
from scan_files import write_picture
from scipy.special import softmax

from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.prepare import prepare
from jaxcnn.data.protocol import describe, partition
from jaxcnn.errors import UserError
from jaxcnn.evaluation import measures
from jaxcnn.evaluation.external import external_name, match_classes
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.inference.trained import classify
from jaxcnn.runs.folder import Run, read_predictions, write_predictions

SIZE = 64
MODEL = SimpleCNN(
    stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6, dropout=0.0
)
NAMES = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture(scope="module")
def trained():
    return random_trained(MODEL, SIZE)


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    """A run on 40 training and 8 test images, and its data set as the run has divided it."""
    folder = tmp_path_factory.mktemp("own")
    images = smooth_images(48)
    for i, image in enumerate(images):
        split = "Training" if i < 40 else "Testing"
        write_picture(folder / "scans" / split / CLASSES[i % 4] / f"{i:02}.png", image[..., 0])
    dataset, leakage = partition(
        prepare(folder / "scans", folder / "data", size=SIZE).dataset, "leak-free", 0.2, seed=0
    )
    run = Run(save_random_run(folder / "run", trained))
    run.data.write_text(json.dumps(describe(dataset, leakage, "leak-free")))
    for name, split in dataset.splits.items():
        logits = np.zeros((len(split), 4), np.float32)
        write_predictions(run, name, Predictions(logits, split.labels, split.groups, split.names, CLASSES))
    return run, dataset, images


@pytest.fixture
def run(made, tmp_path):
    return Run(shutil.copytree(made[0].folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def other(made, tmp_path_factory):
    """Another set, arranged and named in another way, of which a third is copies: of 3 training and 1 validation image
    (and of a test image, which the run hasn't seen).
    """
    _, dataset, images = made
    folder = tmp_path_factory.mktemp("other") / "other set"
    numbers = {name: [int(path[-6:-4]) for path in split.names] for name, split in dataset.splits.items()}
    copied = [*numbers["train"][:3], numbers["validation"][0], numbers["test"][0]]
    for place, image in enumerate(smooth_images(10, seed=5)):
        write_picture(folder / "train" / NAMES[place % 4] / f"new-{place}.png", image[..., 0])
    for place, number in enumerate(copied):
        name = f"copy-{place}.jpg" if place < 4 else "new-10.jpg"
        write_picture(folder / "test" / NAMES[number % 4] / name, recompressed(images[number])[..., 0], quality=95)
    (folder / "README.md").write_text("no image")
    return folder


@pytest.fixture
def evaluate(run_train):
    return partial(run_train, "evaluate")


@pytest.mark.slow
def test_scores_are_those_of_the_classifier_and_copies_are_counted(evaluate, run, other, trained, tmp_path):
    code, out, err = evaluate(run.folder, "--data", other, "--json", "--csv", tmp_path / "all.csv")
    assert (code, err.startswith("left out: README.md is not an image file")) == (0, True)
    found = json.loads(out)
    [of_run] = found["runs"]
    assert (found["split"], found["data"], of_run["images"], of_run["copies_of_training_images"]) == (
        "all",
        str(other),
        15,
        4,
    )
    assert [(of["name"], of["as"]) for of in found["data_classes"]] == list(zip(NAMES, CLASSES, strict=True))
    assert sum(of["images"] for of in found["data_classes"]) == 15

    kept = read_predictions(run, "external/other-set")
    dataset = prepare(other, tmp_path / "prepared", size=SIZE).dataset
    images = np.concatenate([dataset.splits[name].images for name in ("train", "test")])
    labels = np.concatenate([dataset.splits[name].labels for name in ("train", "test")])
    np.testing.assert_array_equal(kept.labels, labels)
    np.testing.assert_allclose(softmax(kept.logits, axis=1), classify((trained,), images), rtol=1e-4, atol=1e-6)
    expected = measures(kept.logits, labels)
    for name in ("accuracy", "f1_macro", "log_loss"):
        assert of_run["measures"][name]["value"] == pytest.approx(getattr(expected, name)[0])

    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == list(kept.names)
    assert [row["label"] for row in rows] == [CLASSES[label] for label in labels]
    assert [row["class"] for row in rows] == [CLASSES[place] for place in kept.logits.argmax(axis=1)]


def test_unseen_leaves_the_copies_out(evaluate, run, other, tmp_path):
    code, out, _ = evaluate(run.folder, "--data", other, "--unseen", "--csv", tmp_path / "unseen.csv")
    assert code == 0
    assert "images of" in out
    assert "without a copy in the training images" in out
    assert "copies of training images" in out
    with (tmp_path / "unseen.csv").open(newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert (len(names), all("new-" in name for name in names)) == (11, True)
    assert read_predictions(run, "external/other-set-unseen").names == tuple(names)


def test_predictions_for_data_sets_of_one_name_are_kept_apart(run, tmp_path, monkeypatch):
    """By number where the folders are called alike; each set has its own again where it is evaluated again."""
    monkeypatch.chdir(tmp_path)
    names = []
    for source in ("site.v1", "site.v2", "a/data", "b/data", "b/../a/data", "data.zip", "phantom"):
        if source.endswith(("v1", "v2", "data")):
            Path(source).mkdir(parents=True, exist_ok=True)
        for split in (None, "test"):
            name, where = external_name(run, source, split)
            write_predictions(run, name, read_predictions(run, "test"), where)
            names.append(name.removeprefix("external/"))
    assert names[::2] == ["site.v1", "site.v2", "data", "data-2", "data", "data-3", "phantom"]
    of_tests = ["site.v1-test", "site.v2-test", "data-test", "data-test-2", "data-test", "data-test-3", "phantom-test"]
    assert names[1::2] == of_tests


def test_predictions_that_do_not_say_of_what_are_read_and_replaced(run, tmp_path):
    """Older ones."""
    write_predictions(run, "external/data", read_predictions(run, "test"))
    assert external_name(run, str(tmp_path / "data"), None)[0] == "external/data"
    assert len(read_predictions(run, "external/data").names) == len(read_predictions(run, "test").names)


@pytest.mark.slow
def test_an_exported_classifier_is_evaluated_as_its_run(evaluate, run, other, tmp_path, run_train):
    """And nothing is left in its folder, which is what is sent."""
    assert run_train("export", run.folder, tmp_path / "out")[0] == 0
    before = sorted(tmp_path.joinpath("out").rglob("*"))
    words = ["--data", other, "--resamples", 10, "--json"]
    (expected,), (found,) = (json.loads(evaluate(of, *words)[1])["runs"] for of in (run.folder, tmp_path / "out"))
    assert (found["protocol"], found["copies_of_training_images"]) == ("unknown", None)
    for name in ("accuracy", "log_loss"):
        assert found["measures"][name]["value"] == pytest.approx(expected["measures"][name]["value"], rel=1e-3)
    assert sorted(tmp_path.joinpath("out").rglob("*")) == before
    for words, problem in [
        (["--data", other, "--unseen"], "holds an exported classifier, whose training images are unknown"),
        (["--data", other, "--protocol", "official"], "are unknown; leave it out"),
        ([], "is an exported classifier, which keeps no predictions; name the run that it was made from"),
    ]:
        code, _, err = evaluate(tmp_path / "out", *words)
        assert (code, problem in err.splitlines()[-1]) == (2, True)


def test_the_names_that_are_matched_are_shown(evaluate, run, other):
    _, out, _ = evaluate(run.folder, "--data", other, "--resamples", 10)
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["class", "in", "the", "data", "class", "of", "the", "run", "images"]
    assert [line[:2] for line in lines[1:5]] == [list(pair) for pair in zip(NAMES, CLASSES, strict=True)]


def test_a_class_without_a_match_is_asked_for_and_may_be_left_out(evaluate, run, tmp_path):
    for place, image in enumerate(smooth_images(6, seed=8)):
        write_picture(tmp_path / "yes-no" / ("yes", "no")[place % 2] / f"{place}.png", image[..., 0])
    words = [run.folder, "--data", tmp_path / "yes-no", "--resamples", 10, "--json"]
    code, out, err = evaluate(*words)
    assert (code, out) == (2, "")
    assert "the class yes of the data set is not one of the run's (glioma_tumor, " in err
    assert "--map yes=CLASS, or leave its images out with --map yes=\n" in err
    for match, images in (("yes=glioma_tumor", 6), ("yes=", 3)):
        code, out, _ = evaluate(*words, "--map", match)
        found = json.loads(out)
        assert (code, found["runs"][0]["images"]) == (0, images)
        assert {of["name"]: of["as"] for of in found["data_classes"]} == {
            "no": "no_tumor",
            "yes": match.partition("=")[2] or "left out",
        }


def test_a_run_that_knows_tumours_alone_takes_any_kind_for_one():
    assert match_classes(NAMES, ("no", "yes"), {}) == dict(zip(NAMES, ("yes", "yes", "no", "yes"), strict=True))
    with pytest.raises(UserError, match="the class metastasis of the data set is not one of the run's"):
        match_classes(("metastasis",), ("no", "yes"), {})
    with pytest.raises(UserError, match="the class Glioma of the data set could be glioma or glioma_tumor"):
        match_classes(("Glioma",), ("glioma", "glioma_tumor"), {})


def test_where_the_training_images_are_gone_copies_are_unknown(evaluate, run, other):
    data = json.loads(run.data.read_text("utf-8"))
    run.data.write_text(json.dumps(data | {"source": "/nowhere"}))
    code, out, _ = evaluate(run.folder, "--data", other, "--resamples", 10)
    assert code == 0
    assert re.search(r"^copies of training images +unknown$", out, re.MULTILINE)
    code, _, err = evaluate(run.folder, "--data", other, "--unseen")
    assert (code, "are missing (/nowhere: no such folder" in err) == (2, True)


@pytest.mark.slow
def test_wrong_input_is_told_in_one_line(evaluate, run, other, tmp_path):
    prepare(other, tmp_path / "small", size=32)
    for words, problem in [
        (["--map", "a=b"], "--map: needs --data; name a data set"),
        (["--data", other, "--map", "glioma"], "--map glioma: is not of the form A=B"),
        (["--data", other, "--map", "cat=no_tumor"], "cat: is not a class of the data set; choose one of glioma,"),
        (["--data", other, "--map", "glioma=cat"], "cat: is not a class of the run; choose one of glioma_tumor,"),
        (["--data", other, "--split", "validation"], "has no validation images; it has train, test"),
        (["--data", tmp_path / "nowhere"], "nowhere: no such file or folder"),
        (["--data", tmp_path / "small"], "has images of 32x32 pixels, but the run takes 64x64; prepare it with --size"),
    ]:
        code, out, err = evaluate(run.folder, *words)
        # That README.md is left out is told before.
        *_, problem_line = err.splitlines()
        assert (code, out, problem_line.startswith("error: ")) == (2, "", True)
        assert problem in problem_line
