"""The learning rate over a run, and what weight decay leaves alone."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.optimizer import build_optimizer, learning_rate_schedule


def test_cosine_falls_from_the_peak_to_zero():
    rate = learning_rate_schedule("cosine", 1e-3, 0, 100)
    found = [float(rate(step)) for step in range(101)]
    np.testing.assert_allclose(found, 0.5e-3 * (1 + np.cos(np.pi * np.arange(101) / 100)), atol=1e-9)


def test_warm_up_rises_to_the_peak_and_the_cosine_still_ends_with_the_run():
    rate = learning_rate_schedule("cosine", 1e-3, 10, 100)
    found = np.array([float(rate(step)) for step in range(101)])
    np.testing.assert_allclose(found[:11], np.linspace(0, 1e-3, 11), atol=1e-9)
    assert found[55] == pytest.approx(0.5e-3)
    assert found[100] == pytest.approx(0, abs=1e-9)


def test_constant_stays():
    rate = learning_rate_schedule("constant", 0.1, 2, 10)
    np.testing.assert_allclose([rate(step) for step in (0, 1, 2, 9, 99)], [0, 0.05, 0.1, 0.1, 0.1], rtol=1e-6)


def test_weight_decay_shrinks_kernels_and_nothing_else():
    params = {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.full(2, 2.0), "scale": jnp.full(2, 2.0)}
    zero = {name: jnp.zeros_like(leaf) for name, leaf in params.items()}
    optimizer = build_optimizer(learning_rate_schedule("constant", 0.1, 0, 10), weight_decay=0.5, factors={})
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    decayed = optax.apply_updates(params, updates)
    np.testing.assert_allclose(decayed["kernel"], 2 * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(decayed["bias"], 2)
    np.testing.assert_array_equal(decayed["scale"], 2)
