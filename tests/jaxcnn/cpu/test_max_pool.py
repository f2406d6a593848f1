"""The CPU's own max-pool is XLA's, bit by bit, for every shape and tie."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradients import values_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcnn.cpu import max_pool, xla_only

pytestmark = pytest.mark.optimized


def xla(x, window):
    shape = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, shape, "VALID")


@pytest.mark.slow
@settings(deadline=None, max_examples=4)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    window=st.integers(1, 4),
    values=st.integers(1, 4),
    seed=st.integers(0, 1000),
    relu=st.booleans(),
)
def test_max_pool_and_its_gradient_equal_xla_with_ties(size, window, values, seed, relu):
    # Few different values, so that most windows hold a tie, also of negative ones.
    x = jnp.asarray(np.random.default_rng(seed).integers(1 - values, values, (2, *size, 3)).astype(np.float32))
    pools = (partial(max_pool, size=window, relu=relu), lambda x: xla(jax.nn.relu(x) if relu else x, window))
    ours, expected = (values_and_gradients(pool, x) for pool in pools)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_max_pool_sends_the_gradient_of_a_tie_where_torch_does():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 2, (2, 3, 8, 8)).astype(np.float32)
    image = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.max_pool2d(image, 2).square().sum().backward()
    found = jax.grad(lambda x: jnp.sum(max_pool(x, 2) ** 2))(jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(found, image.grad.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("window", "relu"), [(2, False), (2, True), (3, False), pytest.param(17, False, marks=pytest.mark.slow)]
)
def test_forwards_and_forwards_over_backwards_the_derivatives_are_xla_s_with_ties(window, relu):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.integers(-2, 3, (2, 7 + window, 8 + window, 3)).astype(np.float32))
    dx = jnp.asarray(random.normal(size=x.shape), jnp.float32)

    @partial(jax.jit, static_argnums=0)
    def derivatives(pool):
        gradient = jax.grad(lambda x: jnp.sum(pool(x) ** 3))
        each_image_s = jax.vmap(jax.grad(lambda image: jnp.sum(pool(image[None]) ** 3)))(x)
        return *jax.jvp(pool, (x,), (dx,)), *jax.jvp(gradient, (x,), (dx,)), each_image_s

    ours = derivatives(lambda x: max_pool(x, window, relu=relu))
    expected = derivatives(lambda x: xla(jax.nn.relu(x) if relu else x, window))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_the_gradient_searches_the_windows_on_a_tpu_alone(platform):
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x, 2) ** 2)))
    program = gradient.trace(jnp.zeros((1, 4, 4, 1))).lower(lowering_platforms=(platform,)).as_text()
    assert ("select_and_scatter" in program) == (platform == "tpu")


def test_inside_the_switch_the_max_pool_is_xla_s_operation():
    def gradient():
        # A new function each time: what is traced once stays what it is.
        return str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(max_pool(x, 2))))(jnp.zeros((1, 4, 4, 1))))

    assert "select_and_scatter" not in gradient()
    with xla_only():
        assert "select_and_scatter" in gradient()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"xla_backend_optimization_level": "0"},
        pytest.param(
            {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": False},
            marks=pytest.mark.skipif(jax.__version_info__ >= (0, 12), reason="XLA has no older emitters any more"),
        ),
    ],
)
def test_the_gradient_goes_to_a_largest_pixel_however_the_pixels_are_rounded(options):
    """XLA computes a norm once for the maximum and once more for its place, and may round it differently then."""
    random = np.random.default_rng(0)
    x, weights = random.normal(size=(8, 32, 32, 8)), random.normal(size=(8, 16, 16, 8))
    scale, bias = random.uniform(0.5, 2, 8), random.normal(size=8)

    def loss(scale, bias, x, weights):
        mean = jnp.mean(x, axis=(0, 1, 2))
        variance = jnp.mean((x - mean) ** 2, axis=(0, 1, 2))
        return jnp.sum(max_pool((x - mean) * (scale * lax.rsqrt(variance + 1e-5)) + bias, 2, relu=True) * weights)

    arrays = [jnp.asarray(array, jnp.float32) for array in (scale, bias, x, weights)]
    with xla_only():
        expected = jax.jit(jax.grad(loss))(*arrays)
    np.testing.assert_allclose(jax.jit(jax.grad(loss), compiler_options=options)(*arrays), expected, rtol=1e-5)
