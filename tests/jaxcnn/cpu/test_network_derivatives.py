"""What is derived through whole networks with the CPU's own convolutions and pooling is what plain Flax derives."""

import jax
import jax.numpy as jnp
import pytest
from jax.flatten_util import ravel_pytree
from random_network import random_network

from jaxcnn import SimpleCNN, UNetClassifier
from jaxcnn.cpu import xla_only


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "image_shape", "tolerance"),
    [
        pytest.param(
            SimpleCNN(
                stem_features=(16, 16),
                squeeze_features=3,
                skip_features=8,
                head_features=8,
                hidden_features=8,
                dropout=0.0,
            ),
            (3, 64, 64, 1),
            1e-3,
            id="simplecnn",
        ),
        pytest.param(
            UNetClassifier(features=1, head_features=8, hidden_features=8, dropout=0.0),
            (4, 128, 128, 1),
            1e-2,
            id="unet",
        ),
    ],
)
def test_a_network_s_derivatives_are_those_of_plain_flax(model, image_shape, tolerance):
    """With the switch it is the same model: gradient, derivative forwards, and the Hessian times a vector."""
    images, variables = random_network(model, image_shape)
    _, direction = random_network(model, image_shape)
    params, along = variables["params"], jax.tree.map(lambda leaf: leaf / 100, direction["params"])

    def derivatives():
        def loss(params):
            logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.mean(logits**2)

        gradient = jax.grad(loss)
        return jax.jit(lambda p: (jax.jvp(loss, (p,), (along,)), *jax.jvp(gradient, (p,), (along,))))(params)

    found = derivatives()
    with xla_only():
        expected = derivatives()
    for ours, plain in zip(found, expected, strict=True):
        # As vectors: the gradient by a bias before a norm is 0 but for rounding, so that it has no error of its own.
        (a, _), (b, _) = ravel_pytree(ours), ravel_pytree(plain)
        assert jnp.linalg.norm(a - b) < tolerance * jnp.linalg.norm(b)
