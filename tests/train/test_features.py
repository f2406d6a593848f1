"""Training on features that were computed once is training on images: same logits, same losses; never stale ones."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import unet_network
from planted import smooth_images
from random_network import random_network

from jaxcnn.data.augment import Augmentation
from jaxcnn.data.dataset import Split
from jaxcnn.data.load import load_dataset
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.inference.trained import classify, compile_with_weights, load_trained
from jaxcnn.models.unet import STAGE_NAMES
from jaxcnn.models.unet_classifier import UNetClassifier
from jaxcnn.runs.folder import open_run, read_epochs, read_predictions
from train import features
from train.__main__ import main
from train.features import load_features

OPTIONS = ["--width", "0.07", "--max-images", "24", "--epochs", "2", "--batch-size", "8", "--tta", "flip"]
# Adam makes a whole step of a gradient that is but rounding; small steps keep that small.
OPTIONS += ["--learning-rate", "1e-4", "--unet-learning-rate", "1e-5"]
MODEL = UNetClassifier(features=2, head_features=3, hidden_features=5)
IMAGES = Split(smooth_images(5), np.zeros(5, np.int32), ("x",) * 5)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Where features are kept in these tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "jaxcnn" / "features"


def run_unet(folder, *more):
    words = ["train", "unet", "--encoder", "random", "--run-dir", str(folder), *OPTIONS, *more]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as error:
            main()
    assert error.value.code == 0
    return open_run(folder)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A run on features."""
    return run_unet(tmp_path_factory.mktemp("runs") / "cached")


@pytest.fixture(scope="module")
def uncached(tmp_path_factory):
    """The same on images."""
    return run_unet(tmp_path_factory.mktemp("runs") / "uncached", "--no-cache")


@pytest.mark.slow
def test_cached_and_uncached_runs_are_the_same(cached, uncached):
    for line, other in zip(read_epochs(cached), read_epochs(uncached), strict=True):
        for column in ("train_loss", "validation_loss", "test_loss"):
            assert line[column] == pytest.approx(other[column], rel=1e-4)
    for split in ("train", "validation", "test"):
        found, expected = (read_predictions(run, split).logits for run in (cached, uncached))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_pooled_head_alone_learns_and_predicts_as_any_classifier(tmp_path):
    """It has no statistics: of what learns nothing but parameters is left."""
    options = ("--head", "pooled", "--train-from", "head", "--ema", "0.5", "--no-cache")
    run = run_unet(tmp_path / "run", *options, "--weight-decay", "0.1", "--class-weights", "balanced")
    trained = load_trained(run.best)
    assert (trained.model.head, trained.tta) == ("pooled", "flip")
    images = load_dataset("phantom", 24).splits["test"].images
    expected = np.asarray(jax.nn.softmax(read_predictions(run, "test").logits))
    np.testing.assert_allclose(compile_with_weights(classify, (trained,))(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_frozen_stages_are_the_same_bits_after_training(cached, tmp_path):
    """The initial weights depend on the seed alone, so that two runs that learn differently began with the same."""
    faster = run_unet(tmp_path / "faster", "--no-cache", "--learning-rate", "0.01", "--unet-learning-rate", "1e-3")
    first, second = (load_trained(run.best).variables for run in (cached, faster))
    for stage in STAGE_NAMES[:4]:
        for collection in ("params", "batch_stats"):
            jax.tree.map(
                np.testing.assert_array_equal, first[collection]["unet"][stage], second[collection]["unet"][stage]
            )
    kernels = [v["params"]["unet"]["bottleneck"]["conv1"]["kernel"] for v in (first, second)]
    assert not np.array_equal(*kernels)


@pytest.mark.slow
def test_augmented_views_are_trained_on_and_plain_images_are_evaluated(cached, cache, tmp_path):
    before = set(cache.glob("*"))
    run = run_unet(tmp_path / "run", "--augment", "brain-mri", "--views", "2")
    # Two random views of the training images; the images of all three splits as they are were there.
    assert len(set(cache.glob("*")) - before) == 2
    assert read_epochs(run)[0]["train_loss"] != read_epochs(cached)[0]["train_loss"]


def frozen_network(frozen_stages=1, factor=1, **preprocessing):
    network = unet_network(
        MODEL.clone(frozen_stages=frozen_stages), Preprocessing(**preprocessing), Augmentation(rotation=20)
    )
    _, variables = random_network(network.model, (1, 128, 128, 1))
    return network, jax.tree.map(lambda leaf: leaf * factor, network.split(variables)[0])


@pytest.fixture
def computed(monkeypatch):
    """How often features were computed, not read."""
    calls = []
    compute = features.compute_features

    def counting(*arguments, **options):
        calls.append(1)
        return compute(*arguments, **options)

    monkeypatch.setattr(features, "compute_features", counting)
    return calls


@pytest.mark.slow
def test_features_are_the_border_activations_and_computed_once(computed):
    network, frozen = frozen_network()
    expected = network.model.apply(frozen, jnp.asarray(IMAGES.images / np.float32(255)), method="encode")
    for _ in range(2):
        np.testing.assert_allclose(load_features(network, frozen, IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert len(computed) == 1


@pytest.mark.slow
def test_whatever_the_features_depend_on_makes_them_others(computed):
    network, frozen = frozen_network()
    plain = load_features(network, frozen, IMAGES)
    assert len(computed) <= 1
    computed.clear()
    other_images = Split(255 - IMAGES.images, IMAGES.labels, IMAGES.names)
    for changed in (
        lambda: load_features(*frozen_network(factor=1.5), IMAGES),
        lambda: load_features(*frozen_network(frozen_stages=2), IMAGES),
        lambda: load_features(*frozen_network(normalization="per-image-z-score"), IMAGES),
        lambda: load_features(network, frozen, other_images),
        lambda: load_features(network, frozen, IMAGES, view=(0, 0)),
        lambda: load_features(network, frozen, IMAGES, view=(0, 1)),
        lambda: load_features(network, frozen, IMAGES, view=(1, 0)),
    ):
        before = len(computed)
        assert not np.array_equal(changed(), plain)
        assert len(computed) == before + 1


@pytest.mark.slow
def test_a_file_that_was_cut_off_is_made_again(computed, cache):
    network, frozen = frozen_network()
    whole = np.array(load_features(network, frozen, IMAGES))
    for path in cache.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-100])
    computed.clear()
    np.testing.assert_array_equal(load_features(network, frozen, IMAGES), whole)
    assert len(computed) == 1


def test_a_cache_that_cannot_be_written_names_the_way_out(monkeypatch, tmp_path):
    (tmp_path / "jaxcnn").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Exception, match="or give --no-cache"):
        load_features(*frozen_network(), IMAGES)


def test_the_features_that_were_used_longest_ago_make_room(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = features.features_folder()
    folder.mkdir(parents=True)
    for age, name in enumerate("abcd"):
        (folder / f"{name}.npy").write_bytes(bytes(100))
        os.utime(folder / f"{name}.npy", (1000 - age, 1000 - age))
    (folder / "notes.txt").write_text("not ours")
    assert features.remove_features(250) == 200
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "b.npy", "notes.txt"]
    features.clear_features()
    assert capsys.readouterr().out == f"{folder}: 0 MB freed\n"
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
