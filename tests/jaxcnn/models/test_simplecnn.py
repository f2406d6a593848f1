"""SimpleCNN is the reference project's network, and every width of it can be changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from random_network import random_network

from jaxcnn import SimpleCNN

TINY = SimpleCNN(stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6)


def initialized(model, size=128):
    return random_network(model, (2, size, size, 1))


def test_standard_network_has_the_reference_parameter_count():
    shapes = jax.eval_shape(lambda: initialized(SimpleCNN())[1])
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 7_664_420


def test_shape_after_each_stage():
    def stages():
        images, variables = initialized(SimpleCNN())
        _, captured = SimpleCNN().apply(variables, images, train=False, capture_intermediates=True)
        return captured["intermediates"]

    shapes = {name: stage["__call__"][0].shape[1:] for name, stage in jax.eval_shape(stages).items() if name[0] != "_"}
    assert shapes == {
        "conv1": (126, 126, 32),
        "norm1": (126, 126, 32),
        "conv2": (59, 59, 64),
        "norm2": (59, 59, 64),
        "squeeze_excite": (59, 59, 64),
        "residual_conv": (59, 59, 128),
        "residual_project": (59, 59, 128),
        "shortcut": (59, 59, 128),
        "conv3": (5, 5, 256),
        "norm3": (5, 5, 256),
        "Dropout_0": (6400,),  # the flattened features
        "hidden": (1024,),
        "classifier": (4,),
    }


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_forward_pass_is_the_published_formula(gate):
    """The network once more, from lax and NumPy alone."""
    model = TINY.clone(gate=gate)
    images, variables = initialized(model, 64)
    params, statistics = variables["params"], variables["batch_stats"]

    def conv(x, name, padding="VALID", strides=1):
        y = lax.conv_general_dilated(
            x, params[name]["kernel"], (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return np.asarray(y + params[name]["bias"])

    def norm(x, name):
        mean, var = statistics[name]["mean"], statistics[name]["var"]
        return (x - mean) / np.sqrt(var + 1e-5) * params[name]["scale"] + params[name]["bias"]

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def pool(x, size):
        rows, columns = x.shape[1] // size, x.shape[2] // size
        windows = x[:, : rows * size, : columns * size].reshape(x.shape[0], rows, size, columns, size, -1)
        return windows.max(axis=(2, 4))

    def relu(x):
        return np.maximum(x, 0)

    x = pool(relu(norm(conv(np.asarray(images), "conv1"), "norm1")), 2)
    x = relu(norm(conv(x, "conv2"), "norm2"))
    squeeze = params["squeeze_excite"]
    weights = dense(relu(dense(x.mean(axis=(1, 2)), squeeze["reduce"])), squeeze["expand"])
    if gate == "sigmoid":
        scale = 1 / (1 + np.exp(-weights))
    else:
        scale = np.exp(weights) / np.exp(weights).sum(axis=1, keepdims=True)
    x = x * scale[:, None, None, :]
    x = relu(conv(x, "shortcut") + conv(relu(conv(x, "residual_conv", "SAME")), "residual_project"))
    x = relu(norm(conv(pool(x, 4), "conv3", strides=2), "norm3"))
    expected = dense(relu(dense(x.reshape(2, -1), params["hidden"])), params["classifier"])

    np.testing.assert_allclose(model.apply(variables, images, train=False), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_mode_updates_statistics_and_needs_a_dropout_key():
    images, variables = initialized(TINY, 64)
    logits, updates = TINY.apply(
        variables, images, train=True, rngs={"dropout": jax.random.key(2)}, mutable=["batch_stats"]
    )
    assert logits.shape == (2, 4)
    conv1 = images_after_conv1(images, variables["params"]["conv1"])
    # Flax's momentum 0.9: a tenth of the batch's mean is taken in.
    expected = 0.9 * variables["batch_stats"]["norm1"]["mean"] + 0.1 * conv1.mean((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["norm1"]["mean"], expected, rtol=1e-4)
    with pytest.raises(Exception, match="dropout"):
        TINY.apply(variables, images, train=True, mutable=["batch_stats"])


def images_after_conv1(images, layer):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return (
        lax.conv_general_dilated(images, layer["kernel"], (1, 1), "VALID", dimension_numbers=dimensions)
        + (layer["bias"])
    )


@pytest.mark.slow
def test_images_too_small_for_the_last_convolution_are_refused():
    with pytest.raises(ValueError, match=r"at least 50x50.*\(2, 49, 49, 1\)"):
        initialized(TINY, 49)
    assert jnp.isfinite(TINY.apply(initialized(TINY, 50)[1], initialized(TINY, 50)[0], train=False)).all()
