"""A function and its pull-back, to compare two ways to compute the same."""

import jax
import numpy as np


def values_and_gradients(function, *arguments):
    """The result and its pull-back of a random cotangent, compiled."""
    shape = jax.eval_shape(function, *arguments).shape
    # Drawn outside: compiled into different programs, the same draw may round differently.
    cotangent = np.random.default_rng(9).normal(size=shape).astype(np.float32)

    @jax.jit
    def run(cotangent, *arguments):
        y, pull = jax.vjp(function, *arguments)
        return y, *pull(cotangent)

    return run(cotangent, *arguments)


def assert_close(found, expected, tolerance=5e-5):
    """Equal up to rounding; the tolerance is relative to the largest entry."""
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(np.abs(b).max()) + 1e-12)
