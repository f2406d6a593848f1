"""Masks are those of the network on slices that are prepared as it needs them, at the size of the slices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import save_random_weights
from skimage.exposure import rescale_intensity
from skimage.transform import resize

import jaxcnn.inference.trained as module
from jaxcnn import UNet
from jaxcnn.data.dataset import Split
from jaxcnn.data.normalization import standardize_volumes, volume_z_score
from jaxcnn.data.preprocessing import Preprocessing, preprocess
from jaxcnn.inference.hub_volume import prepare_hub_volume
from jaxcnn.inference.segmentation import (
    default_preset,
    load_segmenter,
    predict_split,
    prepare_as_trained,
    segmenter,
)
from jaxcnn.inference.trained import Trained
from jaxcnn.inference.tta import views_of

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "unet"
    save_random_weights(folder, UNet(features=2), (32, 16, 3))
    return folder


@pytest.fixture(scope="module")
def trained(weights):
    """A U-Net, with such a bias that about a half of the pixels are in the masks."""
    trained = load_segmenter(weights)
    images = np.random.default_rng(1).integers(0, 256, (11, 32, 16, 3), np.uint8)
    floats = images / 255
    normalized = (floats - floats.mean(axis=(1, 2), keepdims=True)) / (floats.std(axis=(1, 2), keepdims=True) + 1e-3)
    logits = logits_of(trained, normalized)
    trained.variables["params"]["conv"]["bias"] -= np.median(logits)
    return trained, images, logits - np.median(logits)


def logits_of(trained, normalized):
    apply = jax.jit(lambda variables, x: trained.model.apply(variables, x, train=False))
    return np.asarray(apply(trained.variables, normalized.astype(np.float32)))[..., 1]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 11])  # a part of a batch, and a batch and a part
def test_masks_are_where_the_probability_is_above_a_half(trained, count):
    network, images, logits = trained
    expected = logits[:count] > 0
    assert 0.3 < expected.mean() < 0.7
    # A pixel exactly on the edge may fall to either side.
    assert np.mean((segmenter(network, "per-image-z-score")(images[:count]) == 1) != expected) < 1e-3


@pytest.mark.slow
def test_one_program_serves_all_patients(trained, monkeypatch):
    network, images, _ = trained
    traced = []
    monkeypatch.setattr(module, "views_of", lambda inputs, tta: traced.append(inputs.shape) or views_of(inputs, tta))
    segment = segmenter(network, "per-image-z-score")
    segment(images[:8])
    segment(images)
    assert traced == [(4, 32, 16, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["per-image-z-score", "hub", "as-trained"])
def test_masks_have_the_size_of_the_slices_whatever_that_is(trained, preset):
    images = np.zeros((3, 50, 41, 1), np.uint8)
    images[1:, 10:40, 5:30] = RANDOM.integers(50, 256, (2, 30, 25, 1))
    assert segmenter(trained[0], preset)(images).shape == (3, 50, 41)
    with pytest.raises(ValueError, match="has images of 2 channels, and the network takes 3"):
        segmenter(trained[0], preset)(np.repeat(images, 2, axis=3))


@pytest.mark.parametrize("image_size", [None, 16])
def test_slices_that_were_no_squares_are_prepared_as_in_training(image_size):
    """Training squeezes what isn't square to `image_size`, and so does the way into use."""
    preprocessing = Preprocessing(image_size=image_size)
    trained = Trained(UNet(), {}, preprocessing, (32, 16, 1), ("background", "tumor"), epoch=1)
    images = RANDOM.integers(0, 256, (2, 32, 16, 1), np.uint8)
    found = prepare_as_trained(trained, images)
    np.testing.assert_array_equal(found.inputs, preprocess(images, preprocessing))
    assert found.restore(np.zeros(found.inputs.shape[:3], np.uint8)).shape == (2, 32, 16)


def test_slices_for_a_network_of_squares_keep_their_shape():
    preprocessing = Preprocessing(image_size=16)
    trained = Trained(UNet(), {}, preprocessing, (32, 32, 1), ("background", "tumor"), epoch=1)
    images = RANDOM.integers(0, 256, (2, 32, 20, 1), np.uint8)
    squares = np.pad(images, ((0, 0), (0, 0), (6, 6), (0, 0)), mode="edge")
    np.testing.assert_array_equal(prepare_as_trained(trained, images).inputs, preprocess(squares, preprocessing))


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["per-image-z-score", "volume-z-score"])
def test_the_masks_that_are_scored_are_those_that_are_written(trained, normalization):
    network, images, _ = trained
    shown = dataclasses.replace(network.preprocessing, normalization=normalization)
    network = dataclasses.replace(network, image_shape=(32, 32, 3), preprocessing=shown)
    true = RANDOM.integers(0, 2, images.shape[:3], np.uint8)
    names, patients = tuple(map(str, range(len(images)))), ("patient",) * len(images)
    scored = predict_split(network, Split(images, np.zeros(len(images), np.int32), names, patients, true))
    # 32 x 16 in the middle of a square.
    np.testing.assert_array_equal(scored.true[:, :, 8:24], true)
    assert not scored.true[:, :, :8].any()
    np.testing.assert_array_equal(scored.predicted[:, :, 8:24], segmenter(network, "as-trained")(images))


def test_the_hubs_preparation_is_that_of_its_own_code_on_a_random_volume():
    """Its utils.py in NumPy and scikit-image, as it is published: crop, pad, resize and normalise."""
    volume = np.zeros((5, 60, 50, 3), np.uint8)
    volume[1:4, 8:52, 10:33] = RANDOM.integers(0, 256, (3, 44, 23, 3))
    original = volume.copy()
    original[original < np.max(original) * 0.1] = 0
    lows, highs = np.argwhere(original.max(axis=3)).min(axis=0), np.argwhere(original.max(axis=3)).max(axis=0) + 1
    cropped = original[tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))]
    height, width = cropped.shape[1:3]
    missing = (height - width) / 2
    padded = np.pad(cropped, ((0, 0), (0, 0), (int(np.floor(missing)), int(np.ceil(missing))), (0, 0)))
    resized = resize(padded, (len(cropped), 256, 256, 3), order=2, mode="constant", cval=0, anti_aliasing=False)
    rescaled = rescale_intensity(resized, in_range=(np.percentile(resized, 10), np.percentile(resized, 99)))
    expected = (rescaled - rescaled.mean(axis=(0, 1, 2))) / rescaled.std(axis=(0, 1, 2))
    found, box, square = prepare_hub_volume(volume)
    assert (box, square) == (((1, 4), (8, 52), (10, 33)), 44)
    np.testing.assert_allclose(found[1:4], expected, atol=1e-3)


def test_a_patients_slices_are_normalised_together_to_a_byte():
    images = RANDOM.integers(0, 200, (6, 16, 16, 2)).astype(np.uint8)
    images[::2] //= 3
    patients = ["a", "b", "a", "b", "a", "b"]
    found = np.asarray(volume_z_score(jnp.asarray(standardize_volumes(images, patients), jnp.float32) / 255))
    for first in (0, 1):
        own = images[first::2] / 255
        clipped = np.clip(own, *np.percentile(own, [10, 99]))
        expected = (clipped - clipped.mean(axis=(0, 1, 2))) / clipped.std(axis=(0, 1, 2))
        np.testing.assert_allclose(found[first::2], expected, atol=0.017)


def test_the_hubs_own_weights_are_known_by_their_hash(weights, monkeypatch):
    assert default_preset(weights) == "per-image-z-score"
    from jaxcnn.inference import segmentation

    manifest, model = segmentation.open_pretrained(weights)
    of_hub = dataclasses.replace(manifest, source_sha256="e012d006" + "0" * 56)
    monkeypatch.setattr(segmentation, "open_pretrained", lambda _: (of_hub, model))
    assert default_preset(weights) == "hub"
