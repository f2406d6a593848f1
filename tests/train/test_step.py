"""The step is a pure function: it learns, and it gives the same result however the batch is spread over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn import SimpleCNN
from jaxcnn.data.augment import Augmentation
from jaxcnn.data.batch import Batch, images_of
from jaxcnn.data.dataset import Split
from jaxcnn.data.pipeline import evaluation_batches
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.evaluation.counts import scores, total
from train.losses import LOSSES, cross_entropy
from train.network import Network, draw_variables
from train.state import create_state, parameter_count
from train.step import make_eval_step, make_train_step

SIZE = 50
MODEL = SimpleCNN(
    stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6, dropout=0.0
)


def network(**changes):
    return Network(MODEL.clone(**changes), Preprocessing(), Augmentation())


def initial_state(optimizer, seed):
    return create_state(network(), optimizer, draw_variables(network(), (SIZE, SIZE, 1))[1](seed))


def stripes(count: int, seed: int = 0) -> Split:
    """Four easy classes: a bright bar at the top, the bottom, the left or the right of a noisy image."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 4
    images = random.integers(0, 60, (count, SIZE, SIZE, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        bar = (slice(None, 12), slice(-12, None))[label % 2]
        image[(bar, slice(None)) if label < 2 else (slice(None), bar)] += 150
    return Split(images, labels, tuple(str(i) for i in range(count)))


def as_batch(split: Split) -> Batch:
    return Batch(split.images, split.labels, np.ones(len(split), bool))


@pytest.fixture(scope="module")
def optimizer():
    return optax.adam(1e-2)


@pytest.fixture(scope="module")
def state(optimizer):
    return initial_state(optimizer, seed=0)


def assert_trees_close(found, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)


@pytest.mark.slow
def test_a_few_steps_learn_four_easy_classes(state, optimizer):
    step = jax.jit(make_train_step(network(dropout=0.1), optimizer, cross_entropy))
    batch, key = as_batch(stripes(32)), jax.random.key(0)
    for _ in range(80):
        state, counted = step(state, batch, key)
    assert int(state.step) == 80
    assert scores(total([counted])).accuracy > 0.9


@pytest.mark.slow
def test_the_step_is_a_function_of_its_arguments(state, optimizer):
    step = jax.jit(make_train_step(network(dropout=0.5), optimizer, cross_entropy))
    batch = as_batch(stripes(8))
    once, again = (step(state, batch, jax.random.key(0)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert step(state, batch, jax.random.key(1))[1].loss != once[1].loss
    # The step's number is folded into the key: the same batch meets another dropout mask at the next step.
    later = state.replace(step=state.step + 1)
    assert step(later, batch, jax.random.key(0))[1].loss != once[1].loss


@pytest.mark.slow
def test_a_batch_spread_over_a_named_axis_gives_the_whole_batch_s_step(state, optimizer):
    batch, key = as_batch(stripes(16)), jax.random.key(0)
    spread = jax.tree.map(lambda leaf: leaf.reshape(4, 4, *leaf.shape[1:]), batch)
    # SGD, since Adam's first step divides rounding errors by themselves.
    optimizer = optax.sgd(0.1)
    state = state.replace(opt_state=optimizer.init(state.params))
    whole_state, whole_tally = jax.jit(make_train_step(network(dropout=0.5), optimizer, cross_entropy))(
        state, batch, key
    )
    shares = jax.vmap(
        make_train_step(network(dropout=0.5), optimizer, cross_entropy, axis_name="device"),
        in_axes=(None, 0, None),
        axis_name="device",
    )
    states, tallies = jax.jit(shares)(state, spread, key)
    for device in range(4):
        assert_trees_close(jax.tree.map(lambda leaf: leaf[device], tallies), whole_tally, rtol=1e-5)  # noqa: B023
        assert_trees_close(jax.tree.map(lambda leaf: leaf[device], states), whole_state, rtol=1e-3, atol=1e-5)  # noqa: B023


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 6, 23, 40])
def test_evaluation_does_not_depend_on_the_batch_size(state, batch_size):
    split = stripes(23)
    eval_step = jax.jit(make_eval_step(network(), cross_entropy))
    outputs = [eval_step(state, batch) for batch in evaluation_batches(images_of(split), batch_size)]
    counted, logits = eval_step(state, as_batch(split))
    assert_trees_close(total([tally for tally, _ in outputs]), total([counted]), rtol=1e-5)
    found = np.concatenate([batch_logits for _, batch_logits in outputs])[: len(split)]
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_initial_state_depends_on_the_seed_alone(state, optimizer):
    again = initial_state(optimizer, seed=0)
    jax.tree.map(np.testing.assert_array_equal, state, again)
    other = initial_state(optimizer, seed=1)
    assert not np.array_equal(other.params["hidden"]["kernel"], state.params["hidden"]["kernel"])
    assert parameter_count(state.params) == sum(np.size(leaf) for leaf in jax.tree.leaves(state.params))


def test_losses_are_those_of_torch():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32) * 3
    labels = np.arange(9, dtype=np.int32) % 4
    targets = torch.from_numpy(labels).long()
    plain = torch.nn.functional.cross_entropy(torch.from_numpy(logits), targets, reduction="none")
    # What the reference project computes: a network that ends in softmax, and a criterion that applies another.
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1)
    doubled = torch.nn.functional.cross_entropy(probabilities, targets, reduction="none")
    for name, expected in (("cross-entropy", plain), ("double-softmax", doubled)):
        np.testing.assert_allclose(LOSSES[name](jnp.asarray(logits), labels), expected.numpy(), rtol=1e-5)


def test_double_softmax_can_not_fall_below_its_floor():
    certain = 100 * jnp.eye(4)
    np.testing.assert_allclose(LOSSES["double-softmax"](certain, jnp.arange(4)), np.log((np.e + 3) / np.e), rtol=1e-5)
