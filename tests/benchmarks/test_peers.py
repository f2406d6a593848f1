"""Whoever is timed beside this project computes the same numbers from the same weights."""

import dataclasses
import functools

import numpy as np
import pytest

pytest.importorskip("torch")

import jax
import torch

from benchmarks import ours, theirs
from benchmarks.contest import Contest
from benchmarks.peers import PEERS, best_peers
from convert.mapping import plan
from convert.recipes import recipe_for
from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.models.table import variable_shapes
from train.network import build_network, draw_variables
from train.options import make_config

# torch.compile imports what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MODELS = {"simplecnn": SimpleCNN(), "segmentation": UNet(), "unet": UNetClassifier()}


def against(contest, peer, tmp_path):
    """The contest with this peer, and its module; skips where the peer is missing."""
    if PEERS[peer].missing:
        pytest.skip(PEERS[peer].missing)
    contest = dataclasses.replace(contest, peer=peer, exported=str(tmp_path / "network.onnx"))
    if PEERS[peer].module != "runtimes":
        return contest, theirs
    from benchmarks import runtimes

    theirs.export(contest)
    return contest, runtimes


@pytest.fixture
def give_weights(monkeypatch):
    """A function that gives PyTorch's networks the weights of ours."""
    build = theirs.network

    def give(model, size, variables):
        recipe = recipe_for(model, size, "none")
        layout = {key: tuple(tensor.shape) for key, tensor in recipe.build_network().state_dict().items()}
        arrays = plan(recipe.table, layout, recipe.shapes(), {}).to_torch(variables)
        state = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}

        def with_weights(contest):
            network, channels = build(contest)
            network.load_state_dict(state, strict=False)
            return network, channels

        monkeypatch.setattr(theirs, "network", with_weights)

    return give


def draw(path, leaf):
    """Weights that keep the spread of what goes through them, and statistics other than 0 and 1."""
    random = np.random.default_rng(list(str(path).encode()))
    if path[-1].key in ("var", "scale"):
        return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    return random.normal(0, (2 / max(1, np.prod(leaf.shape[:-1]))) ** 0.5 / 2, leaf.shape).astype(np.float32)


@pytest.fixture
def compile_without_vectors():
    """What torch.compile writes has no vectors: the C++ compiler, which takes most of the time, is quicker without."""
    from torch._inductor import config

    with config.patch({"cpp.vec_isa_ok": False}):
        yield


@functools.cache
def inferred(contest, channels):
    """What this project infers, and its weights."""
    model = MODELS["simplecnn" if channels == 1 else "segmentation"]
    shapes = variable_shapes(model, (contest.size, contest.size, channels))
    variables = jax.tree.map_with_path(draw, shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "random_weights", lambda _: variables)
        found = getattr(ours, contest.name)(contest)()
    return model, variables, np.asarray(found if channels == 1 else 1 / (1 + np.exp(-found[..., 0])))


def with_peers(*works):
    """Each of these works with its peers. The SimpleCNN alone is compiled: it takes ten seconds a network."""
    return [
        (work, peer)
        for work in works
        for peer in best_peers(work)
        if work.startswith("simplecnn") or not peer.startswith("compiled")
    ]


@pytest.mark.usefixtures("compile_without_vectors")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "peer"), with_peers("simplecnn_inference", "unet_inference"))
def test_every_peer_infers_the_same(name, peer, give_weights, tmp_path):
    contest, channels = (Contest(name, 2, 64), 1) if name.startswith("simplecnn") else (Contest(name, 2, 32), 3)
    model, variables, expected = inferred(contest, channels)
    give_weights(model, contest.size, variables)
    contest, module = against(contest, peer, tmp_path)
    found = np.asarray(getattr(module, contest.name)(contest)()).reshape(expected.shape)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


WITHOUT_DROPOUT = {
    "simplecnn_training": ("simplecnn", 64, 1, {}),
    "uncached_transfer_training": ("unet", 128, 1, {"encoder": "random", "cache": False}),
    "unet_training": ("segmentation", 32, 3, {"width": 1.0}),
}


@functools.cache
def learnt(name):
    """The losses of three steps of this project's, without dropout, and the weights before them."""
    model, size, channels, options = WITHOUT_DROPOUT[name]
    contest = Contest(name, 4, size)
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(ours, "make_config", functools.partial(make_config, dropout=0.0))
        network = build_network(
            make_config(model, dropout=0.0, **options), 2 if channels == 3 else 4, (size, size, channels)
        )
        work = getattr(ours, name)(contest)
        tallies = [work() for _ in range(3)]
    losses = [float(tally.loss) / int(tally.confusion.sum()) for tally in tallies]
    return contest, MODELS[model], draw_variables(network, (size, size, channels))[1](0), losses


# TorchDynamo, which traces the wrappers of these tests, too, looks at the gradients of all tensors that it meets.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.usefixtures("compile_without_vectors")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "peer"), with_peers(*WITHOUT_DROPOUT))
def test_every_peer_learns_the_same(name, peer, give_weights, tmp_path, monkeypatch):
    contest, model, variables, expected = learnt(name)
    give_weights(model, contest.size, variables)
    contest, module = against(contest, peer, tmp_path)
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, x: x)
    work = getattr(module, name)(contest)
    found = [float(work()) for _ in range(3)]
    assert expected[0] > expected[2] + 1e-3
    np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.parametrize("peer", best_peers("data_preparation"))
def test_every_peer_prepares_the_same_images(peer, tmp_path):
    contest, module = against(Contest("data_preparation", 3, 32), peer, tmp_path)
    expected = ours.data_preparation(contest)()
    found = np.moveaxis(255 * module.data_preparation(contest)().numpy(), 1, -1)
    np.testing.assert_allclose(found, expected, atol=1e-3)
