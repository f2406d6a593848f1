"""The CPU's own max-pool is XLA's, bit by bit, for every shape and tie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradients import values_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcnn.cpu import max_pool, xla_only


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


def test_inside_the_switch_the_max_pool_is_xla_s_operation():
    x = jnp.zeros((1, 4, 4, 1))

    def primitives(function):
        return str(jax.make_jaxpr(function)(x))

    with xla_only():
        assert "custom_vjp" not in primitives(lambda x: max_pool(x, 2))
    assert "custom_vjp" in primitives(lambda x: max_pool(x, 2))
