"""The way back: what was trained or converted here runs in PyTorch, and a round trip gives the same bytes."""

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from flax.traverse_util import flatten_dict
from orbax.checkpoint import v1 as orbax
from random_network import random_network
from random_run import random_trained, save_random_run

from convert.conversion import convert_back
from convert.recipes import recipe_for
from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.inference.trained import Trained
from jaxcnn.models.resnet import ResNet, ResNetClassifier
from jaxcnn.models.segmentation import SegmentationUNet
from jaxcnn.models.table import MODELS

TINY_SIMPLECNN = SimpleCNN(
    stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6
)
TINY = {
    "unet": UNet(features=2),
    "simplecnn": TINY_SIMPLECNN,
    "simplecnn of the reference": TINY_SIMPLECNN.clone(gate="softmax"),
    "unet-classifier": UNetClassifier(features=2, head_features=3, hidden_features=4),
    "unet-classifier, pooled": UNetClassifier(features=2, head="pooled", classes=3),
    "unet-classifier on grey": UNetClassifier(features=2, head="pooled", in_channels=1),
    "resnet": ResNet(features=2, classes=5),
    "resnet-classifier": ResNetClassifier(features=2, block="bottleneck", blocks=(1, 1, 1, 1)),
}
SIZES = {"simplecnn": 64, "simplecnn of the reference": 90, "unet-classifier": 144}


@pytest.fixture
def convert_to_torch(run_convert):
    return lambda *words: run_convert("to-torch", *words)


def leaves(folder):
    return flatten_dict(orbax.load(folder), sep="/")


def test_every_model_of_the_table_has_a_way_back():
    # The network that segments has that of a U-Net, see below.
    modules = {architecture.module for architecture in MODELS.values()} - {SegmentationUNet}
    assert modules <= {type(model) for model in TINY.values()}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_the_way_back_is_proven_and_the_bits_come_back(name):
    model = TINY[name]
    recipe = recipe_for(model, SIZES.get(name, 128), "none")
    _, variables = random_network(model, (1, *recipe.image_shape))
    variables = jax.device_get(variables)
    if isinstance(model, UNet):
        # Logits of a thousand, of which a sigmoid shows the rounding.
        variables["params"]["conv"]["kernel"] = variables["params"]["conv"]["kernel"] / 1000
    there = convert_back(variables, recipe)
    assert not there.unproven
    arrays = {key: tensor.numpy() for key, tensor in there.state.items()}
    jax.tree.map(np.testing.assert_array_equal, there.plan.to_flax(arrays), variables)
    missing = set(there.plan.layout) - set(there.state)
    assert all(key.startswith(("unet.upconv", "unet.decoder", "unet.conv")) for key in missing)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "simplecnn"])
def test_a_file_comes_back_byte_by_byte(network, run_convert, convert_to_torch, states, tmp_path):
    original, again = tmp_path / "original.safetensors", tmp_path / "new" / "again.safetensors"
    safetensors.torch.save_file(states[network], original, metadata={"format": "pt"})
    assert run_convert(network, original, tmp_path / "OUT")[0] == 0
    code, out, err = convert_to_torch(tmp_path / "OUT", again)
    assert (code, err) == (0, "")
    assert out.endswith(f"\n{again}\n")
    assert again.read_bytes() == original.read_bytes()
    # An evaluation leaves its predictions there.
    (tmp_path / "OUT" / "config.json").write_text("{}")
    code, out, _ = convert_to_torch(tmp_path / "OUT", tmp_path / "again.pt")
    assert code == 0
    loaded = torch.load(tmp_path / "again.pt", weights_only=True)
    assert list(loaded) == list(states[network])
    assert all(torch.equal(loaded[key], tensor) for key, tensor in states[network].items())


@pytest.mark.slow
def test_a_run_goes_to_torch_and_comes_back(run_convert, convert_to_torch, tmp_path):
    trained = random_trained(TINY_SIMPLECNN, 64)
    run = save_random_run(tmp_path / "run", trained)
    path = tmp_path / "run.safetensors"
    code, out, _ = convert_to_torch(run, path)
    assert code == 0
    assert "images    64 x 64 x 1, normalization none" in out
    state = safetensors.torch.load_file(path)
    assert int(state["conv1.1.num_batches_tracked"]) == 0
    back = run_convert("simplecnn", path, tmp_path / "OUT", "--gate", "sigmoid", "--image-size", 64)
    assert back[0] == 0
    expected = flatten_dict(jax.device_get(trained.variables), sep="/")
    for leaf, array in leaves(tmp_path / "OUT").items():
        np.testing.assert_array_equal(array, expected[leaf])


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "normalization"), [(4, "none"), (1, "imagenet")])
def test_a_run_that_segments_goes_to_torch_as_a_u_net_and_comes_back(
    run_convert, convert_to_torch, tmp_path, channels, normalization
):
    """The network sees what the normalisation gives: ImageNet's makes three channels of one."""
    model = SegmentationUNet(features=2, classes=3, out_channels=2)
    preprocessing, shape = Preprocessing(normalization=normalization), (32, 32, channels)
    _, variables = random_network(model, (1, *preprocessing.seen_shape(shape)))
    variables["params"]["conv"] = jax.tree.map(lambda leaf: leaf / 1000, variables["params"]["conv"])
    trained = Trained(model, variables, preprocessing, shape, ("background", "core", "oedema"), epoch=2)
    run = save_random_run(tmp_path / "run", trained)
    assert convert_to_torch(run, tmp_path / "run.pt")[0] == 0
    assert run_convert("unet", tmp_path / "run.pt", tmp_path / "OUT")[0] == 0
    expected = flatten_dict(jax.device_get(variables), sep="/")
    arrays = leaves(tmp_path / "OUT")
    assert arrays.keys() == expected.keys()
    for leaf, array in arrays.items():
        np.testing.assert_array_equal(array, expected[leaf])


@pytest.mark.slow
def test_a_tree_that_is_wrong_in_torch_is_not_written(convert_to_torch, tmp_path, monkeypatch):
    """A SimpleCNN with a gate that PyTorch's network doesn't have."""
    from convert import networks

    monkeypatch.setitem(networks.GATES, "sigmoid", networks.GATES["softmax"])
    run = save_random_run(tmp_path / "run", random_trained(TINY_SIMPLECNN, 64))
    code, _, err = convert_to_torch(run, tmp_path / "run.pt")
    assert code == 1
    assert "not proven, so nothing was written: the first block that differs is sepconv: PyTorch gives mean" in err
    assert not (tmp_path / "run.pt").exists()


def test_a_network_that_the_table_does_not_fit_is_told_in_one_line(convert_to_torch, tmp_path):
    """The reference's SimpleCNN takes grey images, and this one was trained on three channels."""
    run = save_random_run(tmp_path / "run", random_trained(TINY_SIMPLECNN, 64, normalization="imagenet"))
    code, _, err = convert_to_torch(run, tmp_path / "run.pt")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {run}: params/conv1/kernel: has the shape (3, 3, 3, 2), but conv1.0.weight fills")


@pytest.mark.slow
def test_what_can_not_be_written_or_read(convert_to_torch, tmp_path):
    run = save_random_run(tmp_path / "run", random_trained(TINY_SIMPLECNN, 64))
    (tmp_path / "there.pt").touch()
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "empty").mkdir()
    for words, message in [
        ((run, tmp_path / "run"), "has an unknown suffix; end the name in .safetensors or .pt"),
        ((run, tmp_path / "there.pt"), "there.pt: exists; replace it with --overwrite"),
        ((run, tmp_path / "folder.pt", "--overwrite"), "folder.pt: exists; name a file"),
        ((tmp_path / "empty", tmp_path / "x.pt"), f"{tmp_path / 'empty'}: holds no weights"),
        ((tmp_path / "nowhere", tmp_path / "x.pt"), f"{tmp_path / 'nowhere'}: holds no weights"),
        ((run, tmp_path / "there.pt" / "x.pt"), "x.pt: can't be written: "),
    ]:
        code, _, err = convert_to_torch(*words)
        assert code == 2
        assert err.count("\n") == 1
        assert message in err
    assert {path.name for path in tmp_path.iterdir()} == {"run", "there.pt", "folder.pt", "empty"}
