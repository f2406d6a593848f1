"""The classifier is a head on the bottleneck of a U-Net that stays as it was."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_network import random_network

from jaxcnn import UNet, UNetClassifier
from jaxcnn.models.architecture import ChannelsError
from jaxcnn.models.unet import STAGE_NAMES

TINY = UNetClassifier(features=2, head_features=3, hidden_features=5)
POOLED = UNetClassifier(features=2, head="pooled")


def initialized(model, shape=(2, 128, 128, 1)):
    return random_network(model, shape)


def test_the_published_parameter_counts():
    params = jax.eval_shape(lambda: initialized(UNetClassifier())[1])["params"]
    unet = params.pop("unet")
    head = sum(leaf.size for leaf in jax.tree.leaves(params))
    bottleneck = sum(leaf.size for leaf in jax.tree.leaves(unet["bottleneck"]))
    assert head == 8_422_788
    assert head + bottleneck == 11_963_780


def test_the_pooled_head_has_a_weight_for_each_mean_and_maximum():
    params = jax.eval_shape(lambda: initialized(UNetClassifier(head="pooled"), (1, 16, 48, 1))[1])["params"]
    del params["unet"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4_100


def test_the_weights_of_a_unet_fit_as_they_are():
    def encoder():
        return UNet().init(jax.random.key(0), jnp.zeros((1, 128, 128, 3)), train=False, method="encode")

    classifier = jax.eval_shape(lambda: initialized(UNetClassifier())[1])
    for collection, tree in jax.eval_shape(encoder).items():
        assert classifier[collection]["unet"] == tree


@pytest.mark.slow
def test_the_head_is_the_published_formula():
    """From the bottleneck of the grey image in three channels, once more in NumPy."""
    images, variables = initialized(TINY, (2, 144, 160, 1))
    params, statistics = variables["params"], variables["batch_stats"]

    def selu(x):
        return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))

    def dense(x, name):
        return x @ params[name]["kernel"] + params[name]["bias"]

    encoder = {collection: tree["unet"] for collection, tree in variables.items()}
    encode = jax.jit(partial(UNet(features=2).apply, train=False, method="encode"))
    x, _ = encode(encoder, np.repeat(images, 3, axis=-1))
    windows = np.lib.stride_tricks.sliding_window_view(x, (8, 8), axis=(1, 2))
    x = np.einsum("bhwcij,ijcf->bhwf", windows, params["conv"]["kernel"]) + params["conv"]["bias"]
    norm, of_norm = params["norm"], statistics["norm"]
    x = (x - of_norm["mean"]) / np.sqrt(of_norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
    assert x.shape == (2, 2, 3, 3)
    expected = dense(selu(dense(selu(x.reshape(2, -1)), "hidden")), "classifier")
    logits = jax.jit(partial(TINY.apply, train=False))(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_grey_images_are_repeated_and_others_must_have_the_channels_of_the_unet():
    images, variables = initialized(POOLED, (2, 32, 48, 1))
    logits = jax.jit(partial(POOLED.apply, train=False))
    np.testing.assert_array_equal(logits(variables, images), logits(variables, np.repeat(images, 3, axis=-1)))
    with pytest.raises(ChannelsError, match="needs images of 3 channels, got shape"):
        logits(variables, np.repeat(images, 2, axis=-1))


@pytest.mark.slow
def test_the_pooled_head_is_linear_in_means_and_maxima():
    images, variables = initialized(POOLED, (2, 32, 48, 1))
    features = jax.jit(partial(POOLED.clone(frozen_stages=5).apply, method="encode"))(variables, images)
    assert features.shape == (2, 2, 3, 32)
    places = np.asarray(features, np.float64).reshape(2, 6, 32)
    dense = variables["params"]["classifier"]
    expected = np.concatenate([places.mean(axis=1), places.max(axis=1)], axis=1) @ dense["kernel"] + dense["bias"]
    logits = jax.jit(partial(POOLED.apply, train=False))(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [2, 4])
def test_frozen_stages_stay_and_the_rest_learns(frozen):
    model = TINY.clone(frozen_stages=frozen)
    images, variables = initialized(model)

    def loss(params):
        logits, updates = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            images,
            train=True,
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
        return jnp.sum(logits**2), updates["batch_stats"]

    gradients, statistics = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    before = variables["batch_stats"]
    for index, stage in enumerate(STAGE_NAMES):
        same = jax.tree.map(np.array_equal, statistics["unet"][stage], before["unet"][stage])
        moved = jax.tree.map(lambda leaf: bool(jnp.any(leaf != 0)), gradients["unet"][stage])
        assert all(jax.tree.leaves(same)) == (index < frozen)
        assert any(jax.tree.leaves(moved)) == (index >= frozen)
    for name in ("conv", "norm", "hidden"):
        assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients[name]))
    assert not np.array_equal(statistics["norm"]["mean"], before["norm"]["mean"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "frozen", "border"),
    [
        (TINY, 128, 2, (32, 32, 4)),
        (TINY, 128, 4, (8, 8, 16)),
        (TINY, 128, 5, (8, 8, 32)),
        (POOLED, 32, 3, (4, 4, 8)),
    ],
)
def test_the_model_is_its_head_on_what_its_frozen_stages_make_of_the_images(model, size, frozen, border):
    model = model.clone(frozen_stages=frozen)
    images, variables = initialized(model, (2, size, size, 1))
    features = jax.jit(partial(model.apply, method="encode"))(variables, images)
    assert features.shape == (len(images), *border)
    logits = jax.jit(partial(model.apply, train=False, method="classify"))(variables, features)
    np.testing.assert_allclose(
        logits, jax.jit(partial(model.apply, train=False))(variables, images), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("frozen", [-1, 6])
def test_a_stage_that_is_not_there_cannot_be_frozen(frozen):
    with pytest.raises(ValueError, match=f"frozen_stages {frozen}: must be 0 to 5"):
        initialized(TINY.clone(frozen_stages=frozen))


def test_images_below_the_size_of_the_kernel_are_refused():
    with pytest.raises(ValueError, match=r"at least 128x128 pixels, got shape \(2, 112, 128, 1\)"):
        initialized(TINY, (2, 112, 128, 1))
