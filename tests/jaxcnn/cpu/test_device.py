"""What the CPU must do is done on it, and who has left it out is told how to take it in."""

import jax
import numpy as np
import pytest

from jaxcnn.cpu.device import cpu_device
from jaxcnn.data.phantom import phantom_images
from jaxcnn.errors import UserError


def test_it_is_a_cpu_of_this_process():
    assert cpu_device("draws").platform == "cpu"
    assert cpu_device("draws") in jax.local_devices(backend="cpu")


@pytest.fixture
def no_cpu(monkeypatch):
    """JAX as it is where the user has named other platforms alone."""

    def local_devices(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", local_devices)
    return lambda platforms: monkeypatch.setenv("JAX_PLATFORMS", platforms)


@pytest.mark.parametrize("platforms", ["cuda", "rocm,tpu"])
def test_platforms_without_the_cpu_are_the_user_s_mistake(no_cpu, platforms):
    no_cpu(platforms)
    message = rf"^JAX_PLATFORMS={platforms} leaves out the CPU, which draws the phantom; set it to {platforms},cpu$"
    with pytest.raises(UserError, match=message):
        phantom_images(0, np.arange(4))


@pytest.mark.parametrize("platforms", ["", "cuda,cpu", "cpu"])
def test_another_failure_is_not_taken_for_that(no_cpu, platforms):
    no_cpu(platforms)
    with pytest.raises(RuntimeError, match="Unknown backend cpu"):
        cpu_device("draws")
