"""The proof: the PyTorch network and the Flax model see the same images, and every block's outputs are compared."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from jaxtyping import Float32

from jaxcnn.cpu.device import cpu_device

# Float32 sums in another order differ by about 1e-6 of the largest value; a wrong array by 1e-2 or more.
TOLERANCE = 1e-4

Outputs = Mapping[str, Float32[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class Block:
    """Two modules that compute the same.

    Attributes:
        name: in the report.
        torch_module: its name in the PyTorch network; empty is the network itself.
        flax_module: its path in the Flax model; empty is the model itself.
        finish: what the Flax model leaves to its caller.
    """

    name: str
    torch_module: str
    flax_module: str
    finish: Callable[[Any], Any] = lambda outputs: outputs


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between the outputs of a block.

    Attributes:
        block: its name.
        shape: of the outputs, channels last.
        absolute: the largest of any value.
        relative: that, over the largest magnitude in PyTorch's outputs. NaN where all of those are 0, since a block
            without outputs proves nothing.
    """

    block: str
    shape: tuple[int, ...]
    absolute: float
    relative: float

    @property
    def within_tolerance(self) -> bool:
        """Whether the block is proven; NaN never is."""
        return self.relative <= TOLERANCE


def random_images(shape: tuple[int, int, int], count: int = 2) -> Float32[np.ndarray, "count height width channel"]:
    """Normal noise: no symmetry under which a flipped or transposed kernel would go unnoticed."""
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def compare(
    blocks: Sequence[Block],
    network: torch.nn.Module,
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Float32[np.ndarray, "batch height width channel"],
) -> tuple[Difference, ...]:
    """Run both in inference mode, in float32 on the CPU."""
    return differences(
        blocks,
        expected=torch_outputs(network, [block.torch_module for block in blocks], images),
        found=flax_outputs(model, variables, images),
    )


def differences(blocks: Sequence[Block], *, expected: Outputs, found: Outputs) -> tuple[Difference, ...]:
    """Between what PyTorch's modules gave and what Flax's did, block by block."""
    return tuple(
        _difference(block.name, expected[block.torch_module], np.asarray(block.finish(found[block.flax_module])))
        for block in blocks
    )


def _difference(
    block: str, expected: Float32[np.ndarray, "*shape"], found: Float32[np.ndarray, "*shape"]
) -> Difference:
    absolute = float(np.abs(expected - found).max())
    largest = float(np.abs(expected).max())
    return Difference(block, expected.shape, absolute, absolute / largest if largest else float("nan"))


def torch_outputs(
    network: torch.nn.Module, modules: Sequence[str], images: Float32[np.ndarray, "batch height width channel"]
) -> Outputs:
    """What these modules of the network give, channels last."""
    outputs = {}

    def keep(name: str, _module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        channels_last = output.movedim(1, -1)
        # A copy, since the next layer may work in place.
        outputs[name] = channels_last.numpy(force=True).copy()

    hooks = [network.get_submodule(name).register_forward_hook(partial(keep, name)) for name in modules]
    try:
        with torch.no_grad():
            network.eval()(torch.from_numpy(images).movedim(-1, 1).contiguous())
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def flax_outputs(
    model: nn.Module, variables: Mapping[str, Any], images: Float32[np.ndarray, "batch height width channel"]
) -> Outputs:
    """What every module of the model gives, by its path.

    Raises:
        UserError: JAX_PLATFORMS leaves out the CPU.
    """
    with jax.default_device(cpu_device("is where PyTorch computes")), jax.default_matmul_precision("highest"):
        return jax.device_get(_capture(model, variables, images))


@partial(jax.jit, static_argnums=0)
def _capture(model: nn.Module, variables: Mapping[str, Any], images: jax.Array) -> Mapping[str, jax.Array]:
    _, captured = model.apply(variables, images, train=False, capture_intermediates=True)
    calls = flatten_dict(captured["intermediates"], sep="/")
    return {path.removesuffix("__call__").removesuffix("/"): outputs for path, (outputs,) in calls.items()}
