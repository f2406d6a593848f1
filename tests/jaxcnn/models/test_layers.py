"""The blocks that the models share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models.layers import relu


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_relu_is_jax_s_with_its_derivatives(dtype):
    """At 0 and -0, too, where the gradient is 0 by convention; and beyond where x is a number."""
    x = jnp.asarray([-jnp.inf, -2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0, jnp.inf], dtype)
    dx = jnp.arange(1, 9).astype(dtype)

    def derivatives(f):
        gradient = jax.grad(lambda x: jnp.sum(f(x) * f(jnp.cos(x))))
        return *jax.jvp(f, (x,), (dx,)), gradient(x[1:-1]), *jax.jvp(gradient, (x[1:-1],), (dx[1:-1],))

    for ours, jaxs in zip(derivatives(relu), derivatives(jax.nn.relu), strict=True):
        np.testing.assert_array_equal(ours, jaxs)
