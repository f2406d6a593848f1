"""The moving average of the weights: its formula, what it is used for, and what it leaves as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import unet_network

from jaxcnn import UNetClassifier
from jaxcnn.data.batch import Batch
from train.losses import cross_entropy
from train.machine.devices import Placement, choose_devices, compile_train_step, distribute, replicate
from train.network import draw_variables
from train.state import create_state
from train.step import make_eval_step, make_train_step

# The decay warms up over the first three steps.
STEPS, DECAY = 6, 0.3
OPTIMIZER = optax.sgd(0.1)


@pytest.fixture(scope="module")
def network():
    """A head on features, so that something is frozen and there is little to compile."""
    model = UNetClassifier(features=1, head_features=3, hidden_features=4, frozen_stages=5)
    return dataclasses.replace(unet_network(model), on_features=True)


@pytest.fixture(scope="module")
def batch():
    features = np.random.default_rng(0).normal(size=(8, 8, 8, 16)).astype(np.float32)
    return Batch(features, np.arange(8, dtype=np.int32) % 4, np.ones(8, bool))


@pytest.fixture(scope="module")
def trained(network, batch):
    """The states of some steps as they are compiled for training, where each is given the memory of the last one."""
    parallel = choose_devices(Placement(devices=1), len(batch.labels))
    variables = draw_variables(network, (128, 128, 1))[1](0)
    key = jax.random.wrap_key_data(replicate(parallel, jax.random.key_data(jax.random.key(1))))

    def run(ema):
        state = replicate(parallel, create_state(network, OPTIMIZER, variables, average=ema > 0))
        step = make_train_step(network, OPTIMIZER, cross_entropy, ema=ema)
        states, on_device = [jax.device_get(state)], distribute(parallel, batch)
        compiled = compile_train_step(parallel, step, state, on_device, key)
        for _ in range(STEPS):
            state, _ = compiled(state, on_device, key)
            states.append(jax.device_get(state))
        return states

    return run(0.0), run(DECAY)


@pytest.mark.slow
def test_the_average_is_the_published_recursion_of_parameters_and_statistics(trained):
    _, states = trained
    expected = {"params": states[0].params, "batch_stats": states[0].batch_stats}
    for t, state in enumerate(states[1:]):
        kept = min(DECAY, (1 + t) / (10 + t))
        newest = {"params": state.params, "batch_stats": state.batch_stats}
        expected = jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, expected, newest)  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.average, expected)


@pytest.mark.slow
def test_training_itself_is_the_same_bits(trained):
    for plain, averaging in zip(*trained, strict=True):
        assert plain.average == {}
        jax.tree.map(np.testing.assert_array_equal, averaging.replace(average={}), plain)


@pytest.mark.slow
def test_what_is_evaluated_and_kept_is_the_average_with_what_is_frozen(network, batch, trained):
    (*_, plain), (*_, state) = trained
    _, logits = jax.jit(make_eval_step(network, cross_entropy))(state, batch)
    classify = jax.jit(lambda v: network.model.apply(v, jnp.asarray(batch.inputs), train=False, method="classify"))
    np.testing.assert_allclose(classify(state.variables), logits, rtol=1e-5, atol=1e-6)
    assert not np.allclose(classify(plain.variables), logits, rtol=1e-3)
    assert set(state.average["params"]) == {"conv", "norm", "hidden", "classifier"}
    jax.tree.map(np.testing.assert_array_equal, state.variables["params"]["unet"], plain.variables["params"]["unet"])


@pytest.mark.slow
def test_on_several_devices_it_is_the_average_of_one(network, batch, trained):
    _, (start, first, *_) = trained
    step = make_train_step(network, OPTIMIZER, cross_entropy, "device", ema=DECAY)
    spread = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), batch)
    averaging = jax.vmap(step, (None, 0, None), axis_name="device")
    states, _ = jax.jit(averaging)(start, spread, jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[3], b, rtol=1e-3, atol=1e-5), states.average, first.average)
