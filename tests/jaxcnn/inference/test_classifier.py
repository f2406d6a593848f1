"""jaxcnn.load: one classifier, whatever form the images come in, and the same answers as the command's."""

import dataclasses
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from planted import smooth_images
from random_run import random_trained, save_random_run

import jaxcnn
from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.preprocessing import Preprocessing, preprocess
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.inference.classifier import Classifier
from jaxcnn.inference.exported import ExportedProgram
from jaxcnn.inference.saliency import explain, grad_cam
from jaxcnn.inference.trained import Trained
from jaxcnn.runs.folder import Run, write_predictions
from train.__main__ import main

SIZE = 64
MODEL = SimpleCNN(stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6)
PIXELS = smooth_images(3, size=SIZE)[..., 0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    trained = random_trained(MODEL, SIZE, tta="flip", normalization="per-image-z-score")
    return save_random_run(tmp_path_factory.mktemp("runs") / "run", trained)


@pytest.fixture(scope="module")
def classifier(run):
    return jaxcnn.load(run)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(run, files):
    """What the command says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", "predict", str(run), *map(str, files), "--csv", str(run / "all.csv")])
        with pytest.raises(SystemExit):
            main()
    lines = [line.split(",") for line in (run / "all.csv").read_text("utf-8").splitlines()]
    return lines[0], [line[1] for line in lines[1:]], np.array([line[-4:] for line in lines[1:]], float)


def test_many_images_take_one_program():
    """However many there are, and each has the answer that it has alone."""
    compiled = []

    def brightness(images):
        compiled.append(images.shape)
        bright = jnp.mean(images.astype(jnp.float32), axis=(1, 2)) / 255
        return jnp.concatenate([bright, 1 - bright], axis=1)

    trained = Trained(ExportedProgram(brightness), {}, Preprocessing(), (16, 16, 1), ("a", "b"), epoch=None)
    classifier = Classifier((trained,))
    images = np.random.default_rng(0).integers(0, 256, (37, 16, 16), np.uint8)
    np.testing.assert_allclose(classifier(images)[:, 0], images.mean(axis=(1, 2)) / 255, rtol=1e-4)
    assert set(compiled) == {(16, 16, 16, 1)}
    assert classifier.unlike(images) is None


@pytest.mark.slow
@pytest.mark.parametrize("form", ["bytes", "floats", "with channel", "paths", "text", "Pillow", "one by one", "larger"])
def test_images_of_any_form_get_the_probabilities_of_the_command(classifier, files, expected, form):
    images = {
        "bytes": PIXELS,
        "floats": PIXELS / 255,
        "with channel": PIXELS[..., np.newaxis],
        "paths": files,
        "text": [str(file) for file in files],
        "Pillow": [Image.fromarray(pixels) for pixels in PIXELS],
        "one by one": [files[0], PIXELS[1], Image.fromarray(PIXELS[2]).convert("CMYK")],
        "larger": np.kron(PIXELS, np.ones((1, 2, 2), np.uint8)),
    }[form]
    head, names, probabilities = expected
    found = classifier(images)
    # A conversion to CMYK and back, or to twice the size and back, may round a grey level.
    np.testing.assert_allclose(found, probabilities, atol=0.02 if form in ("one by one", "larger") else 2e-6)
    assert classifier.predict(images) == tuple(names)
    assert tuple(head[-4:]) == classifier.classes


@pytest.mark.slow
def test_a_single_image_needs_no_list(classifier, files):
    for one in (files[1], str(files[1]), PIXELS[1], Image.fromarray(PIXELS[1])):
        np.testing.assert_allclose(classifier(one), classifier(PIXELS)[1:2], atol=1e-6)


@pytest.mark.slow
def test_maps_are_those_of_the_most_probable_class(classifier):
    labels = jnp.asarray(classifier(PIXELS).argmax(axis=1), jnp.int32)
    (trained,) = classifier.members
    views = [preprocess(view, trained.preprocessing) for view in (PIXELS[..., None], PIXELS[:, :, ::-1, None])]
    plain, mirrored = (grad_cam(trained.model, trained.variables, view, labels) for view in views)
    maps = plain + mirrored[:, :, ::-1]
    maps /= maps.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(classifier.saliency(PIXELS), maps, atol=1e-5)
    assert maps.max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("no/such.png", r"no/such.png can.t be read|no/such.png"),
        (np.zeros((2, 2, 2, 2)), r"an array of float64 with the shape \(2, 2, 2, 2\) holds no grey images"),
        (np.full((20, 20), 255.0), r"float images must lie in \[0, 1\], got 255 to 255"),
        (np.zeros((20, 20), np.int64), "an array of int64"),
        ([], "images: none are given; give at least one"),
    ],
)
def test_what_is_no_image_is_named(classifier, images, message):
    with pytest.raises(ValueError, match=message):
        classifier(images)


@pytest.mark.slow
def test_importing_the_package_is_light():
    """Nothing is imported but what is used: not JAX for the version, not TFDS, Matplotlib or Orbax for a model."""
    code = """
import json, sys
import jaxcnn
jaxcnn.__version__
bare = [name for name in ("jax", "flax", "numpy") if name in sys.modules]
jaxcnn.SimpleCNN
heavy = ("tensorflow_datasets", "matplotlib", "orbax.checkpoint", "grain", "torch", "sklearn", "scipy")
print(json.dumps([bare, [name for name in heavy if name in sys.modules], dir(jaxcnn)]))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    bare, heavy, names = json.loads(shown)
    assert (bare, heavy) == ([], [])
    assert set(jaxcnn.__all__) <= set(names)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three networks that see images in three ways, with the predictions that tell that a run has ended."""
    folder = tmp_path_factory.mktemp("sweep") / "sweep"
    for seed, preprocessing in enumerate(({}, {"normalization": "per-image-z-score"}, {"image_size": 56})):
        trained = random_trained(
            dataclasses.replace(MODEL, gate=("sigmoid", "softmax")[seed % 2]), SIZE, **preprocessing
        )
        run = save_random_run(folder / f"seed={seed}", trained)
        write_predictions(
            Run(run),
            "test",
            Predictions(np.zeros((1, 4), np.float32), np.zeros(1, np.int32), np.zeros(1, int), ("a",), CLASSES),
        )
    return folder


@pytest.mark.slow
def test_several_runs_are_one_classifier_of_their_mean_probabilities(sweep, files, monkeypatch, capsys):
    runs = sorted(sweep.iterdir())
    expected = np.mean([jaxcnn.load(run)(PIXELS) for run in runs], axis=0)
    np.testing.assert_allclose(jaxcnn.load(runs)(PIXELS), expected, atol=1e-6)
    np.testing.assert_allclose(jaxcnn.load(sweep)(PIXELS), expected, atol=1e-6)

    for words in ([sweep], runs):
        monkeypatch.setattr(sys, "argv", ["train", "predict", *map(str, [*words, *files]), "--json"])
        with pytest.raises(SystemExit) as error:
            main()
        assert error.value.code == 0
        document = json.loads(capsys.readouterr().out)
        assert [of["run"] for of in document["runs"]] == [str(run) for run in runs]
        found = [list(image["probabilities"].values()) for image in document["images"]]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_the_maps_of_runs_that_see_the_same_are_added(sweep):
    first, second, smaller = sorted(sweep.iterdir())
    both = jaxcnn.load([first, second])
    labels = both(PIXELS).argmax(axis=1).astype(np.int32)
    maps = sum(
        np.asarray(explain(jaxcnn.load(run).members, jnp.asarray(PIXELS)[..., None], jnp.asarray(labels))[1])
        for run in (first, second)
    )
    maps /= maps.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(both.saliency(PIXELS), maps, atol=1e-5)
    with pytest.raises(ValueError, match="saliency: the runs see images at different sizes or crops"):
        jaxcnn.load([first, smaller]).saliency(PIXELS)


def test_runs_of_other_classes_or_images_are_not_combined(run, classifier, tmp_path):
    (trained,) = classifier.members
    for name, change, problem in (
        ("classes", {"classes": ("a", "b", "c", "d")}, "has the classes a, b, c, d, but"),
        (
            "size",
            {"image_shape": (80, 80, 1), "preprocessing": Preprocessing(image_size=64)},
            "has the image shape 80, 80, 1, but",
        ),
    ):
        other = save_random_run(tmp_path / name, dataclasses.replace(trained, **change))
        with pytest.raises(UserError, match=problem):
            jaxcnn.load([run, other])
    with pytest.raises(UserError, match="RUN: name at least one"):
        jaxcnn.load([])
