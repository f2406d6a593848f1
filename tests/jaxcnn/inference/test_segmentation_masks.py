"""Predicted masks are those of the network on normalised slices, and Dice is the F1 score of their pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from jaxcnn import UNet
from jaxcnn.inference.pretrained import Manifest, Pretrained
from jaxcnn.inference.segmentation import dice, predict_masks


@pytest.fixture
def unet():
    model = UNet(features=2)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False))
    variables = jax.tree.map(lambda leaf: random.uniform(-0.4, 0.6, leaf.shape).astype(leaf.dtype), shapes)
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    mappings = ("counts", "converted_to_float32", "fields", "paths", "left_out", "versions")
    unknown = {name: {} for name in mappings} | dict.fromkeys(("model", "note", "source", "source_sha256"), "")
    manifest = Manifest(
        **unknown, image_shape=(16, 16, 3), normalization="per-image-z-score", parity=(), tolerance=1e-4
    )
    return Pretrained(model, variables, manifest)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 11])  # a part of a batch, and a batch and a part
def test_masks_are_where_the_probability_is_above_a_half(unet, count):
    images = np.random.default_rng(1).integers(0, 256, (count, 32, 16, 3), np.uint8)
    scaled = images / 255
    normalized = scaled - scaled.mean(axis=(1, 2), keepdims=True)
    normalized /= scaled.std(axis=(1, 2), keepdims=True) + 1e-3
    apply = jax.jit(lambda variables, x: unet.model.apply(variables, x, train=False))
    logits = apply(unet.variables, normalized.astype(np.float32))
    # Such a bias that about a half of the pixels are in the mask.
    unet.variables["params"]["conv"]["bias"] -= np.median(logits)
    logits = apply(unet.variables, normalized.astype(np.float32))
    expected = np.asarray(jax.nn.sigmoid(logits))[..., 0] > 0.5
    assert 0.3 < expected.mean() < 0.7
    found = predict_masks(unet, images)
    # A pixel exactly on the edge may fall to either side.
    assert np.mean(found != expected) < 1e-3


def test_a_size_that_does_not_fit_is_refused(unet):
    with pytest.raises(ValueError, match="multiples of 16"):
        predict_masks(unet, np.zeros((1, 20, 16, 3), np.uint8))


def test_dice_is_the_f1_score_of_the_pixels():
    random = np.random.default_rng(0)
    predicted, true = random.uniform(size=(2, 3, 8, 8)) < np.array([0.3, 0.5])[:, None, None, None]
    assert dice(predicted, true) == pytest.approx(f1_score(true.ravel(), predicted.ravel()))


def test_dice_of_masks_that_agree_and_that_have_nothing_in_common():
    mask = np.eye(5, dtype=bool)
    assert dice(mask, mask) == 1
    assert dice(mask, ~mask) == 0
    assert dice(mask, np.zeros_like(mask)) == 0
    assert dice(np.zeros_like(mask), np.zeros_like(mask)) == 1
