"""Dropout drops its share and keeps the mean; its masks don't depend on how the batch is spread."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models.dropout import Dropout


def dropped(x, rate, key=0, axis_name=None):
    return Dropout(rate, axis_name).apply({}, x, train=True, rngs={"dropout": jax.random.key(key)})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_share_scale_mean_and_variance(rate):
    count = 40_000
    y = np.asarray(dropped(jnp.ones((8, count // 8)), rate))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    # Ones become a Bernoulli variable over its mean; four of its standard errors are allowed.
    variance = rate / (1 - rate)
    assert abs(y.mean() - 1) < 4 * np.sqrt(variance / count)
    np.testing.assert_allclose(y.var(), variance, rtol=0.05)


def test_the_masks_of_examples_are_independent():
    kept = np.asarray(dropped(jnp.ones((50, 2000)), 0.5)) > 0
    correlation = np.corrcoef(kept)[~np.eye(50, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 6), (8, 3, 2, 2)])
def test_a_batch_over_four_devices_drops_what_the_whole_would(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    shares = x.reshape(4, 2, *shape[1:])
    spread = jax.vmap(partial(dropped, rate=0.5, axis_name="devices"), axis_name="devices")(shares)
    np.testing.assert_array_equal(spread.reshape(shape), dropped(x, 0.5))


@pytest.mark.slow
def test_a_part_of_a_batch_drops_what_the_whole_would():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 20)), jnp.float32)
    places = jnp.asarray([4, 1])
    part = Dropout(0.5, places=places).apply({}, x[places], train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(part, dropped(x, 0.5)[places])


@pytest.mark.slow
def test_rates_under_vmap_are_those_of_single_models():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 100)), jnp.float32)
    rates = jnp.asarray([0.0, 0.25, 0.5, 1.0])
    together = jax.jit(jax.vmap(partial(dropped, x)))(rates)
    np.testing.assert_array_equal(together[0], x)
    np.testing.assert_array_equal(together[3], 0)
    for rate, y in zip([0.25, 0.5], together[1:3], strict=True):
        np.testing.assert_allclose(y, dropped(x, rate), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_the_gradient_is_the_mask(rate):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 100)), jnp.float32)
    gradient = jax.grad(lambda x: dropped(x, rate).sum())(x)
    np.testing.assert_allclose(gradient, dropped(jnp.ones_like(x), rate), rtol=1e-6)


def test_without_training_and_without_a_rate_no_key_is_needed():
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, train=False), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, train=True), x)
    with pytest.raises(Exception, match="dropout"):
        Dropout(0.5).apply({}, x, train=True)


def test_two_layers_of_a_network_draw_different_masks():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Dropout(0.5)(x, train=True), Dropout(0.5)(x, train=True)

    first, second = Twice().apply({}, jnp.ones((2, 50)), rngs={"dropout": jax.random.key(0)})
    assert (first != second).any()


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(ValueError, match=str(rate)):
        dropped(jnp.ones((2, 3)), rate)


def test_half_precision_stays():
    assert dropped(jnp.ones((2, 3), jnp.bfloat16), 0.5).dtype == jnp.bfloat16
