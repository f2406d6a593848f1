"""The CPU's own gradients are XLA's: for every shape, padding and tie."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from random_network import random_network

from jaxcnn import SimpleCNN
from jaxcnn.cpu_gradients import conv_general_dilated, max_pool

NHWC = ("NHWC", "HWIO", "NHWC")


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


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * float(jnp.abs(b).max()) + 1e-12)


@settings(deadline=None, max_examples=4)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.sampled_from([1, 1, 2]),
    padding=st.sampled_from(["SAME", "VALID", [(2, 0), (1, 3)]]),
)
def test_convolution_and_both_gradients_equal_xla(batch, size, kernel, channels, stride, padding):
    x = jax.random.normal(jax.random.key(0), (batch, *size, channels[0]))
    weights = jax.random.normal(jax.random.key(1), (*kernel, *channels))
    ours = values_and_gradients(
        lambda x, w: conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=NHWC), x, weights
    )
    xla = values_and_gradients(
        lambda x, w: lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=NHWC), x, weights
    )
    assert_close(ours, xla)


@settings(deadline=None, max_examples=4)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    window=st.integers(1, 4),
    values=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_max_pool_and_its_gradient_equal_xla_with_ties(size, window, values, seed):
    # Few different values, so that most windows hold a tie.
    x = jnp.asarray(np.random.default_rng(seed).integers(0, values, (2, *size, 3)).astype(np.float32))
    shape = (1, window, window, 1)
    ours = values_and_gradients(lambda x: max_pool(x, window), x)
    xla = values_and_gradients(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, shape, shape, "VALID"), x)
    for a, b in zip(ours, xla, strict=True):
        np.testing.assert_array_equal(a, b)


def test_max_pool_sends_the_gradient_of_a_tie_where_torch_does():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 2, (2, 3, 8, 8)).astype(np.float32)
    image = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.max_pool2d(image, 2).square().sum().backward()
    found = jax.grad(lambda x: jnp.sum(max_pool(x, 2) ** 2))(jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(found, image.grad.numpy().transpose(0, 2, 3, 1))


@pytest.mark.slow
def test_a_population_of_kernels_can_be_mapped_over():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    kernels = jax.random.normal(jax.random.key(1), (4, 3, 3, 3, 5))

    def loss(kernel):
        y = conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        return jnp.sum(max_pool(y, 2) ** 2)

    together = jax.vmap(jax.grad(loss))(kernels)
    assert_close(together, [jax.grad(loss)(kernel) for kernel in kernels])


@pytest.mark.slow
def test_the_network_s_gradient_is_that_of_plain_flax(monkeypatch):
    """With the CPU's gradients switched off it is the same model."""
    model = SimpleCNN(
        stem_features=(4, 6), squeeze_features=3, skip_features=8, head_features=8, hidden_features=8, dropout=0.0
    )
    images, variables = random_network(model, (3, 64, 64, 1))

    def gradient():
        def loss(params):
            logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.sum(logits**2)

        return jax.jit(jax.grad(loss))(variables["params"])

    ours = gradient()
    for module in ("jaxcnn.layers", "jaxcnn.simplecnn"):
        monkeypatch.setattr(f"{module}.Conv", nn.Conv)
    monkeypatch.setattr("jaxcnn.cpu_gradients.max_pool", lambda x, size: nn.max_pool(x, (size, size), (size, size)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max())), ours, gradient()
    )
