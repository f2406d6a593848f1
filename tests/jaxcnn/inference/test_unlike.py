"""Whether an image is like the training images: the distance is Mahalanobis's, and what is foreign is further away."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from PIL import Image
from planted import smooth_images
from random_run import random_trained, save_random_run
from scipy.spatial.distance import mahalanobis

from jaxcnn import SimpleCNN
from jaxcnn.data.load import load_dataset
from jaxcnn.data.preprocessing import preprocess
from jaxcnn.inference.classifier import Classifier
from jaxcnn.inference.saliency import split_at_features
from jaxcnn.inference.trained import load_trained, save_trained
from jaxcnn.inference.unlike import REJECTED, fit_unlike, foreign_images
from train.__main__ import main

SIZE = 64
MODEL = SimpleCNN(stem_features=(2, 3), squeeze_features=2, skip_features=6, head_features=5, hidden_features=6)


@pytest.fixture(scope="module")
def images():
    """The phantom's, every other pixel."""
    return {name: split.images[:, ::2, ::2] for name, split in load_dataset("phantom", 120).splits.items()}


@pytest.fixture(scope="module")
def trained(images):
    network = random_trained(MODEL, SIZE, normalization="per-image-z-score")
    return fit_unlike(network, images["train"][:90], images["train"][90:])


def reference(trained, training, images):
    """By SciPy, of the channel means in double precision."""

    def means(images):
        seen = preprocess(images, trained.preprocessing)
        features = split_at_features(trained.model, trained.variables, seen)[0]
        return np.asarray(features, np.float64).mean(axis=(1, 2))

    known = means(training)
    covariance = np.cov(known.T, bias=True)
    inverse = np.linalg.inv(covariance + 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    return np.array([mahalanobis(of, known.mean(axis=0), inverse) for of in means(images)])


@pytest.mark.slow
def test_the_score_is_the_mahalanobis_distance_in_units_of_the_threshold(trained, images):
    held_out = reference(trained, images["train"][:90], images["train"][90:])
    threshold = np.quantile(held_out, 1 - REJECTED)
    found = Classifier((trained,)).unlike(images["train"][90:])
    np.testing.assert_allclose(found, held_out / threshold, rtol=1e-3)
    # Of 30 images, that is 1 or 2.
    assert 1 <= np.sum(found > 1) <= 2


@pytest.mark.slow
def test_images_that_no_scanner_makes_are_unlike(trained, images):
    classifier = Classifier((trained,))
    assert np.mean(classifier.unlike(images["test"]) > 1) < 0.3
    for name, foreign in foreign_images(SIZE, 20).items():
        assert foreign.shape == (20, SIZE, SIZE, 1), name
        # What a network that has learnt nothing can tell; docs/use.md has the numbers of trained ones.
        assert np.median(classifier.unlike(foreign)) > np.median(classifier.unlike(images["test"])), name
        np.testing.assert_array_equal(foreign, foreign_images(SIZE, 20)[name])
    assert np.mean(classifier.unlike(foreign_images(SIZE, 20)["noise"]) > 1) > 0.9


@pytest.mark.slow
def test_several_classifiers_have_their_mean_and_none_if_one_has_none(trained, images):
    other = fit_unlike(random_trained(MODEL, SIZE), images["train"][:40], images["train"][90:])
    each = [Classifier((of,)).unlike(images["test"]) for of in (trained, other)]
    np.testing.assert_allclose(Classifier((trained, other)).unlike(images["test"]), np.mean(each, axis=0), rtol=1e-4)
    older = dataclasses.replace(other, unlike=None)
    assert Classifier((trained, older)).unlike(images["test"]) is None


@pytest.mark.slow
def test_it_is_saved_with_the_weights(trained, images, tmp_path):
    save_trained(tmp_path / "best", trained)
    loaded = load_trained(tmp_path / "best")
    assert set(loaded.variables) == {"params", "batch_stats"}
    np.testing.assert_array_equal(
        Classifier((loaded,)).unlike(images["test"]), Classifier((trained,)).unlike(images["test"])
    )
    save_trained(tmp_path / "best", dataclasses.replace(trained, unlike=None))
    assert load_trained(tmp_path / "best").unlike is None


@pytest.mark.slow
def test_features_that_are_all_the_same_reject_what_differs():
    blank = np.zeros((20, SIZE, SIZE, 1), np.uint8)
    classifier = Classifier((fit_unlike(random_trained(MODEL, SIZE), blank, blank),))
    assert np.isfinite(classifier.unlike(blank)).all()
    assert (classifier.unlike(smooth_images(2, size=SIZE)[..., 0]) > 1).all()


@pytest.mark.slow
def test_predict_tells_it_of_every_image_and_says_so_where_it_is_unlike(trained, images, tmp_path, monkeypatch, capsys):
    run = save_random_run(tmp_path / "run", trained)
    files = {"scan": images["test"][0], "noise": foreign_images(SIZE, 1)["noise"][0]}
    for name, image in files.items():
        Image.fromarray(image[..., 0]).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in files]
    expected = Classifier((trained,)).unlike(paths)
    assert expected[0] < 1 < expected[1]

    def predict(*words):
        monkeypatch.setattr(sys, "argv", ["train", "predict", str(run), *paths, *map(str, words)])
        with pytest.raises(SystemExit) as error:
            main()
        assert error.value.code == 0
        return capsys.readouterr()

    table = predict("--csv", tmp_path / "all.csv")
    assert table.err.startswith("note: 1 of 2 images are unlike the training images (above 1)")
    assert [line.split()[-1] for line in table.out.splitlines()] == ["unlike", *(f"{of:.2f}" for of in expected)]
    written = [line.split(",")[-1] for line in (tmp_path / "all.csv").read_text("utf-8").splitlines()]
    assert written[0] == "unlike"
    np.testing.assert_allclose([float(of) for of in written[1:]], expected, rtol=1e-4)
    found = [image["unlike"] for image in json.loads(predict("--json").out)["images"]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
