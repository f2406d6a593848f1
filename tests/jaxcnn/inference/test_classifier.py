"""jaxcnn.load: one classifier, whatever form the images come in, and the same answers as the command's."""

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
from jaxcnn.data.preprocessing import preprocess
from jaxcnn.inference.saliency import grad_cam
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
    lines = [line.split(",") for line in (run / "all.csv").read_text().splitlines()]
    return lines[0], [line[1] for line in lines[1:]], np.array([line[-4:] for line in lines[1:]], float)


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
    trained = classifier.trained
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
