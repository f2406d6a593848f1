"""Grad-CAM against finite differences, and against networks made by hand, whose evidence lies at a known place."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from random_network import random_network

from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.errors import UserError
from jaxcnn.inference.classifier import Classifier
from jaxcnn.inference.exported import ExportedProgram
from jaxcnn.inference.overlay import open_gallery
from jaxcnn.inference.saliency import grad_cam
from jaxcnn.inference.serve import build_answer
from jaxcnn.inference.trained import Trained
from jaxcnn.models.resnet import ResNet

TRANSFER = UNetClassifier(features=2, head_features=3, hidden_features=5, frozen_stages=5)
TINY = SimpleCNN(
    classes=3, stem_features=(1, 1), squeeze_features=1, skip_features=1, head_features=1, hidden_features=1
)


def compiled(model):
    return jax.jit(partial(grad_cam, model))


@pytest.fixture(scope="module", params=["reference", "pooled"])
def by_finite_differences(request):
    """Model, images, variables, labels and what the maps must be.

    With all of its U-Net frozen the classifier comes in two parts: `encode` gives the feature map, `classify` the
    logits from there.
    """
    model = TRANSFER.clone(head=request.param)
    images, variables = random_network(model, (2, 128, 128, 1))
    labels = jnp.array([3, 1])
    features = jax.jit(partial(model.apply, method="encode"))(variables, images)
    classify = jax.jit(partial(model.apply, train=False, method="classify"))

    def logit(features):
        return np.take_along_axis(np.asarray(classify(variables, features)), np.asarray(labels)[:, None], axis=1)[:, 0]

    # All cells of a channel move together, so the difference is the sum of their gradients. The features are hundreds.
    cells, step = 8 * 8, 1.0
    moved = [features.at[..., k].add(step) for k in range(features.shape[-1])]
    back = [features.at[..., k].add(-step) for k in range(features.shape[-1])]
    weights = [(logit(up) - logit(down)) / (2 * step * cells) for up, down in zip(moved, back, strict=True)]
    coarse = np.maximum(np.einsum("brck,kb->brc", features, weights), 0).astype(np.float32)
    assert (coarse.max(axis=(1, 2)) > 0).all()
    enlarged = [np.asarray(Image.fromarray(map_).resize((128, 128), Image.Resampling.BILINEAR)) for map_ in coarse]
    return model, images, variables, labels, np.stack([map_ / map_.max() for map_ in enlarged])


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [4, 5])
def test_the_map_is_that_of_finite_differences_whatever_is_frozen_in_training(by_finite_differences, frozen):
    model, images, variables, labels, expected = by_finite_differences
    maps = compiled(model.clone(frozen_stages=frozen))(variables, images, labels)
    np.testing.assert_allclose(maps, expected, atol=2e-3)


@pytest.fixture(scope="module")
def detector():
    """A SimpleCNN of one channel that adds up brightness: it speaks for class 0, not at all for 1, against 2."""
    _, variables = random_network(TINY, (1, 128, 128, 1))
    variables = jax.tree.map(jnp.ones_like, variables)
    params = variables["params"]
    # The gate is then the same everywhere and for every image.
    params["squeeze_excite"]["expand"]["kernel"] = jnp.zeros((1, 1))
    params["classifier"]["kernel"] = jnp.array([[1.0, 0.0, -1.0]])
    # Nothing in a black image: no bias anywhere, and norms without a mean.
    variables["params"] = jax.tree.map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if path[-1].key == "bias" else leaf, params
    )
    variables["batch_stats"] = jax.tree.map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if path[-1].key == "mean" else leaf, variables["batch_stats"]
    )
    return variables


def dot(row, column):
    image = np.zeros((128, 128, 1), np.float32)
    image[row - 1 : row + 2, column - 1 : column + 2] = 1
    return image


# Half a pixel from the centres of cells.
PLACES = [(24, 24), (64, 40), (104, 104), (40, 112), (112, 16)]


def test_the_map_lies_on_the_object(detector):
    """Were the cells spread over the image from border to border, those at the far end would be ten pixels off."""
    images = jnp.stack([dot(*place) for place in PLACES])
    maps = np.asarray(compiled(TINY)(detector, images, jnp.zeros(len(images), int)))
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1, rtol=1e-6)
    assert maps.min() == 0
    pixels = np.arange(128)
    for found, (row, column) in zip(maps, PLACES, strict=True):
        peak = np.unravel_index(found.argmax(), found.shape)
        assert np.abs(np.subtract(peak, (row, column))).max() <= 2
        # Beyond a cell's receptive field of 26 pixels and the next cell there is nothing.
        far = np.maximum(np.abs(pixels[:, None] - row), np.abs(pixels - column)) > 13 + 8 + 8
        assert not found[far].any()


@pytest.mark.slow
def test_the_map_is_empty_where_nothing_speaks_for_the_class(detector):
    images = jnp.stack([dot(64, 64), dot(64, 64), np.zeros((128, 128, 1), np.float32)])
    maps = compiled(TINY)(detector, images, jnp.array([1, 2, 0]))
    np.testing.assert_array_equal(maps, np.zeros((3, 128, 128)))


@pytest.mark.slow
def test_an_image_s_map_does_not_depend_on_the_batch(detector):
    images = jnp.stack([dot(*place) for place in PLACES])
    labels = jnp.zeros(len(images), int)
    whole = compiled(TINY)(detector, images, labels)
    np.testing.assert_allclose(compiled(TINY)(detector, images[1:2], labels[1:2]), whole[1:2], atol=1e-6)


@pytest.mark.slow
def test_the_map_of_a_converted_resnet_is_that_of_its_last_layer():
    """Behind the last feature map there is a mean and one linear layer: the class's weights weigh the channels."""
    model = ResNet(classes=3, blocks=(1, 1, 1, 1), features=4)
    images, variables = random_network(model, (2, 64, 64, 1))
    labels = jnp.array([2, 0])
    features = jax.jit(partial(model.apply, train=False, method="encode"))(variables, images)
    weights = variables["params"]["fc"]["kernel"].T[labels]
    cells = np.maximum(np.einsum("brck,bk->brc", features, weights), 0)
    assert (cells.max(axis=(1, 2)) > 0).all()
    found = compiled(model)(variables, images, labels)
    # The cells are centred on these pixels.
    np.testing.assert_allclose(found[:, ::32, ::32], cells / cells.max(axis=(1, 2), keepdims=True), atol=1e-4)


def test_classifiers_without_maps_are_refused_before_any_image():
    trained = Trained(ExportedProgram(jnp.log), {}, Preprocessing(), (16, 16, 1), ("a", "b"), epoch=None)
    for refuses in (partial(open_gallery, folder=Path("maps")), lambda members: build_answer(Classifier(members))):
        with pytest.raises(UserError, match="saliency: ExportedProgram has no feature map; give"):
            refuses((trained,))


def test_other_models_are_refused():
    images, variables = random_network(UNet(features=1), (1, 16, 16, 3))
    with pytest.raises(ValueError, match="UNet has no feature map"):
        grad_cam(UNet(features=1), variables, images, jnp.array([0]))
