"""A converted classifier is taken where a run is: to predict, export, evaluate and draw figures."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from random_run import random_trained, save_random_run
from random_weights import save_random_weights

import figures.__main__
import train.__main__
from jaxcnn import SimpleCNN, UNet
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.load import load_dataset
from jaxcnn.errors import UserError
from jaxcnn.inference.converted import load_classifier
from jaxcnn.models.resnet import ResNet
from jaxcnn.runs.folder import Run, read_predictions

MODEL = SimpleCNN(
    stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6, gate="softmax"
)
SIZE = 128


@pytest.fixture
def folder(tmp_path):
    save_random_weights(tmp_path / "converted", MODEL, (SIZE, SIZE, 1), CLASSES)
    return tmp_path / "converted"


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr("jaxcnn.evaluation.external.load_dataset", few)


def few(data):
    return load_dataset(data, max_images=40)


@pytest.fixture
def run_command(monkeypatch, capsys):
    def run(room, *words):
        monkeypatch.setattr(sys, "argv", [room.__name__, *map(str, words)])
        with pytest.raises(SystemExit) as error:
            room.main()
        captured = capsys.readouterr()
        return error.value.code, captured.out, captured.err

    return run


def expected_logits(folder, images):
    """By the definition: the folder's arrays and its normalisation."""
    trained = load_classifier(folder)
    floats = images.astype(np.float32) / 255
    mean, deviation = (of(floats, axis=(1, 2), keepdims=True) for of in (np.mean, np.std))
    return MODEL.apply(trained.variables, jnp.asarray((floats - mean) / (deviation + 1e-3)), train=False)


@pytest.mark.slow
def test_it_predicts_an_image(folder, run_command, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    code, out, err = run_command(train.__main__, "predict", folder, tmp_path / "scan.png", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["epoch"] is None
    expected = jax.nn.softmax(expected_logits(folder, pixels[None, :, :, None]))[0]
    assert list(document["images"][0]["probabilities"]) == list(CLASSES)
    np.testing.assert_allclose(list(document["images"][0]["probabilities"].values()), expected, rtol=1e-4)


@pytest.mark.slow
def test_it_is_exported_with_where_it_comes_from(folder, run_command, tmp_path):
    assert run_command(train.__main__, "export", folder, tmp_path / "out")[0] == 0
    metadata = json.loads((tmp_path / "out" / "classifier.json").read_text("utf-8"))
    assert (metadata["source"], metadata["classes"]) == ("text", list(CLASSES))
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "Converted from the PyTorch checkpoint text" in readme
    program = jax.export.deserialize(bytearray((tmp_path / "out" / "classifier.jax").read_bytes()))
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1), np.uint8)
    expected = jax.nn.softmax(expected_logits(folder, images))
    np.testing.assert_allclose(program.call(images), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_it_is_evaluated_and_drawn_once_there_are_images(folder, run_command):
    """Before, one line says how; afterwards its folder has predictions as a run's has."""
    for room, words in ((train.__main__, ("evaluate",)), (figures.__main__, ("confusion-matrices",))):
        code, out, err = run_command(room, *words, folder)
        assert (code, out) == (2, "")
        assert f"make some with python -m train evaluate {folder} --data DATA" in err
    code, out, err = run_command(train.__main__, "evaluate", folder, "--data", "phantom", "--split", "test", "--json")
    assert (code, err) == (0, "")
    (scored,) = json.loads(out)["runs"]
    assert scored["protocol"] == "unknown"
    assert run_command(train.__main__, "evaluate", folder, "--data", "phantom")[0] == 0
    test = few("phantom").splits["test"]
    found = read_predictions(Run(folder), "test")
    np.testing.assert_allclose(found.logits, expected_logits(folder, test.images), rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(found.labels, test.labels)
    # Now there are predictions, which are enough, and which say nothing of what it was trained on.
    code, out, err = run_command(train.__main__, "evaluate", folder, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["runs"][0] == {key: scored[key] for key in scored if key != "copies_of_training_images"}
    code, _, err = run_command(train.__main__, "evaluate", folder, "--data", "phantom", "--unseen")
    assert (code, "holds converted weights, whose training images are unknown" in err) == (2, True)
    for figure in ("confusion-matrices", "roc-curves"):
        assert run_command(figures.__main__, figure, folder)[0] == 0
    code, _, err = run_command(figures.__main__, "learning-curves", folder)
    assert (code, "if the run has epochs" in err) == (2, True)
    code, _, err = run_command(train.__main__, "evaluate", folder, "--protocol", "leak-free")
    assert (code, "are unknown; leave it out" in err) == (2, True)
    code, _, err = run_command(train.__main__, "simplecnn", "--run-dir", folder, "--overwrite")
    assert (code, "holds converted weights; choose another" in err) == (2, True)
    # The weights are still what they were.
    assert load_classifier(folder).epoch is None


@pytest.mark.slow
def test_what_is_no_classifier_or_has_no_names_is_refused(tmp_path, run_command):
    save_random_weights(tmp_path / "unet", UNet(features=2), (32, 32, 3))
    save_random_weights(tmp_path / "imagenet", ResNet(features=2, classes=7), (32, 32, 3))
    save_random_weights(tmp_path / "other", MODEL.clone(classes=2), (SIZE, SIZE, 1), ("early", "late"))
    for words, message in [
        (("predict", tmp_path / "unet", "x.png"), "holds a UNet, which is not a classifier"),
        (("predict", tmp_path / "imagenet", "x.png"), "its 7 classes have no names; convert it again with --classes"),
        (("evaluate", tmp_path / "other", "--data", "phantom"), "the class glioma_tumor of the data set is not one of"),
        (("predict", tmp_path / "nowhere", "x.png"), "no run folder"),
    ]:
        code, _, err = run_command(train.__main__, *words)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


def test_a_run_is_loaded_as_a_run(tmp_path):
    run = save_random_run(tmp_path / "run", random_trained(MODEL, SIZE))
    assert load_classifier(run).epoch == 2
    (Path(run) / "config.json").unlink()
    with pytest.raises(UserError, match="no run folder"):
        load_classifier(run)
