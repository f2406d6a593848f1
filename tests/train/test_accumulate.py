"""Micro-batches: what equals the whole batch, and what BatchNorm changes."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Int

from jaxcnn import SimpleCNN
from jaxcnn.data.augment import Augmentation
from jaxcnn.data.batch import Batch
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.models.dropout import Dropout
from train.losses import cross_entropy
from train.network import Network, draw_variables
from train.state import create_state
from train.step import make_train_step


class WithoutNorm(nn.Module):
    """Each image's logits depend on it alone."""

    dropout: float = 0.5
    axis_name: str | None = None
    places: Int[Array, " batch"] | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        self.variable("batch_stats", "unused", lambda: jnp.zeros(1))
        x = nn.relu(nn.Dense(8)(x.reshape(len(x), -1)))
        return nn.Dense(4)(Dropout(self.dropout, self.axis_name, self.places)(x, train=train))


@pytest.fixture(scope="module")
def batch():
    images = np.random.default_rng(0).integers(0, 256, (12, 50, 50, 1), np.uint8)
    return Batch(images, np.arange(12, dtype=np.int32) % 4, np.ones(12, bool))


def without_norm(augmentation: Augmentation = Augmentation()) -> Network:  # noqa: B008  (frozen)
    return dataclasses.replace(Network(SimpleCNN(), Preprocessing(), augmentation), model=WithoutNorm())


def a_step(network: Network, batch: Batch, accumulate: int):
    """The state after one step, and its tally; plain SGD, so that the change of a parameter is its gradient."""
    optimizer = optax.sgd(1.0)
    state = create_state(network, optimizer, draw_variables(network, (50, 50, 1))[1](0))
    return jax.jit(make_train_step(network, optimizer, cross_entropy, accumulate=accumulate))(
        state, batch, jax.random.key(1)
    )


close = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6))


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [2, 4])
def test_without_norms_the_gradient_is_that_of_the_whole_batch(batch, accumulate):
    """Augmentation and dropout included: an example is turned and loses the same in whatever micro-batch it comes."""
    network = without_norm(Augmentation(rotation=15.0))
    close(a_step(network, batch, accumulate), a_step(network, batch, 1))


@pytest.mark.slow
def test_the_same_on_several_devices(batch):
    network = without_norm()
    optimizer = optax.sgd(1.0)
    state = create_state(network, optimizer, draw_variables(network, (50, 50, 1))[1](0))
    step = make_train_step(network, optimizer, cross_entropy, "device", accumulate=2)
    spread = jax.tree.map(lambda leaf: leaf.reshape(3, 4, *leaf.shape[1:]), batch)
    states, _ = jax.jit(jax.vmap(step, (None, 0, None), axis_name="device"))(state, spread, jax.random.key(1))
    whole, _ = a_step(network, batch, 1)
    close(jax.tree.map(lambda leaf: leaf[2], states.params), whole.params)


@pytest.mark.slow
def test_a_norm_sees_one_micro_batch_at_a_time(batch):
    """The running mean moves with each micro-batch, and where all are the same, as with a small batch twice."""
    model = SimpleCNN(
        stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6, dropout=0.0
    )
    network = Network(model, Preprocessing(), Augmentation())
    six = jax.tree.map(lambda leaf: leaf[:6], batch)
    twice = jax.tree.map(lambda leaf: np.repeat(leaf, 2, axis=0), six)
    state, counted = a_step(network, twice, 2)
    once, counted_once = a_step(network, six, 1)
    close(state.params, once.params)
    close(counted, jax.tree.map(lambda leaf: 2 * leaf, counted_once))
    for norm, after_two in state.batch_stats.items():
        for name, start in (("mean", 0.0), ("var", 1.0)):
            # One update leaves 0.9 of the start, two leave 0.81.
            batch_value = (once.batch_stats[norm][name] - 0.9 * start) / 0.1
            np.testing.assert_allclose(after_two[name], 0.81 * start + 0.19 * batch_value, rtol=1e-4, atol=1e-5)
