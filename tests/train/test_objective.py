"""What training minimises beside what it reports: a step against torch's gradient, whole and in micro-batches."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Int
from sklearn.utils.class_weight import compute_class_weight

from jaxcnn import SimpleCNN
from jaxcnn.data.augment import Augmentation
from jaxcnn.data.batch import Batch
from jaxcnn.data.preprocessing import Preprocessing
from train.losses import LOSSES, balanced_weights, build_objective, cross_entropy
from train.network import Network
from train.options import make_config
from train.state import create_state
from train.step import make_train_step

CLASSES = 4


class Linear(nn.Module):
    """Logits that torch can give, too."""

    axis_name: str | None = None
    places: Int[Array, " batch"] | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        del train
        self.variable("batch_stats", "unused", lambda: jnp.zeros(1))
        return nn.Dense(CLASSES, name="dense")(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    return Batch(
        random.integers(0, 256, (12, 3, 3, 1), np.uint8), random.integers(0, 4, 12, np.int32), np.ones(12, bool)
    )


def torch_loss(torch, params, batch, **options):
    images = torch.from_numpy(batch.inputs.reshape(12, -1).astype(np.float32) / 255)
    logits = images @ params["kernel"] + params["bias"]
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels).long(), **options)


WEIGHTS = np.array([0.5, 2.0, 0.25, 1.0], np.float32)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("options", "weights"), [({"label_smoothing": 0.2}, None), ({}, WEIGHTS)])
def test_a_step_goes_down_torch_s_gradient_and_reports_the_plain_loss(batch, options, weights, accumulate):
    torch = pytest.importorskip("torch")
    network = Network(SimpleCNN(), Preprocessing(), Augmentation())
    network = dataclasses.replace(network, model=Linear())
    params = {"kernel": np.random.default_rng(1).normal(size=(9, CLASSES)).astype(np.float32), "bias": np.ones(4, "f4")}
    variables = {"params": {"dense": params}, "batch_stats": {"unused": np.zeros(1, np.float32)}}
    optimizer = optax.sgd(1.0)
    state = create_state(network, optimizer, variables)
    objective = build_objective("cross-entropy", options.get("label_smoothing", 0.0), weights)
    step = make_train_step(network, optimizer, cross_entropy, objective=objective, accumulate=accumulate)
    after, counted = jax.jit(step)(state, batch, jax.random.key(0))

    theirs = {name: torch.from_numpy(leaf.copy()).requires_grad_() for name, leaf in params.items()}
    if weights is not None:
        options = {"weight": torch.from_numpy(weights)}
    # PyTorch's own mean divides by the sum of the weights.
    (torch_loss(torch, theirs, batch, **options, reduction="sum") / 12).backward()
    for name, leaf in theirs.items():
        np.testing.assert_allclose(params[name] - after.params["dense"][name], leaf.grad, rtol=1e-4, atol=1e-6)
    plain = torch_loss(torch, theirs, batch, reduction="sum")
    np.testing.assert_allclose(counted.loss, plain.item(), rtol=1e-5)


def test_without_options_the_objective_is_the_loss_itself():
    assert all(build_objective(name, 0.0, None) is loss for name, loss in LOSSES.items())


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.random.default_rng(0).choice([0, 1, 3], 50, p=[0.7, 0.2, 0.1]).astype(np.int32)
    found = balanced_weights(labels, CLASSES)
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(found[[0, 1, 3]], expected, rtol=1e-6)
    assert found[2] == 0
    assert found[labels].mean() == pytest.approx(1)


def test_an_image_keeps_its_weight_where_its_label_is_smoothed(batch):
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(12, CLASSES)), jnp.float32)
    both, smoothed = (build_objective("cross-entropy", 0.1, w)(logits, batch.labels) for w in (WEIGHTS, None))
    np.testing.assert_allclose(both, WEIGHTS[batch.labels] * smoothed, rtol=1e-6)


def test_smoothing_what_can_not_be_certain_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing 0.1: works only with the loss cross-entropy"):
        make_config("simplecnn", label_smoothing=0.1, loss="double-softmax")
    with pytest.raises(ValueError, match=r"label_smoothing 1.0: must be at least 0 and below 1"):
        make_config("simplecnn", label_smoothing=1.0)
