"""The PyTorch networks that parity is measured against are those of the checkpoints."""

import pytest
import torch

from convert.networks import HubUNet, ReferenceSimpleCNN


def test_they_are_the_networks_written_for_the_tests(case):
    """Two writings of one network: the same keys in the same order, and with the same weights the same outputs."""
    network = case.recipe.build_network()
    state = case.network.state_dict()
    assert [(key, tensor.shape) for key, tensor in network.state_dict().items()] == [
        (key, tensor.shape) for key, tensor in state.items()
    ]
    network.load_state_dict(state)
    images = torch.from_numpy(case.recipe.random_images()).movedim(-1, 1)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), case.network(images))


def test_the_simplecnn_has_the_keys_of_the_reference_project():
    with torch.device("meta"):
        state = ReferenceSimpleCNN(4, (32, 64), 32, 128, 256, 1024).state_dict()
    assert {key.rsplit(".", 1)[0] for key in state} == {
        *("conv1.0", "conv1.1", "conv1.4", "conv1.5", "SEBlock1.3", "SEBlock1.5", "sepconv"),
        *("module1.0", "module1.2", "final.1", "final.2", "final.6", "final.8"),
    }


@pytest.mark.real_data
def test_the_unet_has_the_keys_shapes_and_order_of_the_stand_in(shared):
    expected = torch.load(shared / "weights" / "unet-lgg128.pt", weights_only=True)
    with torch.device("meta"):
        found = HubUNet(in_channels=3, out_channels=1, features=32).state_dict()
    assert [(key, tensor.shape, tensor.dtype) for key, tensor in found.items()] == [
        (key, tensor.shape, tensor.dtype) for key, tensor in expected.items()
    ]
