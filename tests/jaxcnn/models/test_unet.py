"""The U-Net has the hub's sizes and names; what it computes is compared with PyTorch in tests/convert."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_network import random_network

from jaxcnn import UNet
from jaxcnn.models.layers import DoubleConv, UpConv

TINY = UNet(features=2)
ENCODER = ("encoder1", "encoder2", "encoder3", "encoder4", "bottleneck")


def initialized(model, shape=(2, 32, 48, 3), **options):
    return random_network(model, shape, **options)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_tree_has_the_hubs_size_and_names():
    shapes = jax.eval_shape(lambda: initialized(UNet())[1])
    assert size(shapes["params"]) == 7_763_041
    assert len(jax.tree.leaves(shapes["params"])) == 64
    assert len(jax.tree.leaves(shapes["batch_stats"])) == 36
    stages = {*ENCODER, "decoder1", "decoder2", "decoder3", "decoder4"}
    assert set(shapes["params"]) == stages | {"upconv1", "upconv2", "upconv3", "upconv4", "conv"}
    assert all(set(shapes["params"][stage]) == {"conv1", "norm1", "conv2", "norm2"} for stage in stages)


def test_the_encoder_is_a_part_of_the_tree():
    whole = jax.eval_shape(lambda: initialized(UNet())[1])
    encoder = jax.eval_shape(lambda: initialized(UNet(), method="encode")[1])
    assert size(encoder["params"]) == 4_714_208
    for collection, stages in encoder.items():
        assert stages == {name: whole[collection][name] for name in ENCODER}


@pytest.mark.slow
def test_shapes_on_the_way_down_and_up():
    def run():
        images, variables = initialized(TINY)
        return TINY.apply(variables, images, False, method="encode"), TINY.apply(variables, images, train=False)

    (bottleneck, skips), logits = jax.eval_shape(run)
    assert [skip.shape for skip in skips] == [(2, 32, 48, 2), (2, 16, 24, 4), (2, 8, 12, 8), (2, 4, 6, 16)]
    assert bottleneck.shape == (2, 2, 3, 32)
    assert logits.shape == (2, 32, 48, 1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 5, 7, 3), (2, 1, 4, 6)])
def test_upconv_is_the_transposed_convolution_of_flax(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    ours = UpConv(4)
    flax = nn.ConvTranspose(4, (2, 2), strides=(2, 2), padding="VALID", transpose_kernel=True)
    variables = ours.init(jax.random.key(1), x)
    variables["params"]["bias"] += jnp.arange(4.0)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, flax.init(jax.random.key(1), x))

    def loss(layer):
        return lambda variables, x: jnp.sum(jnp.sin(layer.apply(variables, x)))

    np.testing.assert_allclose(ours.apply(variables, x), flax.apply(variables, x), rtol=1e-5, atol=1e-5)
    gradients = [jax.jit(jax.grad(loss(layer), argnums=(0, 1)))(variables, x) for layer in (ours, flax)]
    for found, expected in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_upconv_keeps_the_variance_of_its_input():
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 256))
    outputs, _ = UpConv(64).init_with_output(jax.random.key(1), x)
    assert jnp.std(outputs) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("border", range(6))
def test_the_way_down_in_two_parts_is_the_way_down(border):
    images, variables = initialized(TINY, method="encode")
    bottleneck, _ = jax.jit(partial(TINY.apply, train=False, method="encode"))(variables, images)
    descend = partial(TINY.apply, variables, train=False, method="descend")
    parts = jax.jit(lambda images: descend(descend(images, stop=border), start=border))(images)
    np.testing.assert_allclose(parts, bottleneck, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_under_an_axis_name_the_statistics_are_those_of_the_whole_batch():
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 3))
    stage = DoubleConv(5)
    _, variables = initialized(stage, x.shape)
    whole, updates = jax.jit(partial(stage.apply, train=True, mutable=["batch_stats"]))(variables, x)

    def part(x):
        return DoubleConv(5, axis_name="data").apply(variables, x, train=True, mutable=["batch_stats"])

    halves, half_updates = jax.jit(jax.vmap(part, axis_name="data"))(x.reshape(2, 2, 6, 6, 3))
    np.testing.assert_allclose(halves.reshape(whole.shape), whole, rtol=1e-4, atol=1e-4)
    for found, expected in zip(jax.tree.leaves(half_updates), jax.tree.leaves(updates), strict=True):
        np.testing.assert_allclose(found, np.stack([expected, expected]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 30, 48, 3), r"multiples of 16, got shape \(1, 30, 48, 3\)"),
        ((1, 32, 40, 3), r"multiples of 16, got shape \(1, 32, 40, 3\)"),
        ((1, 0, 16, 3), r"multiples of 16, got shape \(1, 0, 16, 3\)"),
        ((1, 32, 48, 1), r"3 channels, got shape \(1, 32, 48, 1\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        initialized(TINY, shape)
