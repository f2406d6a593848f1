"""Prove a conversion: run both networks on the same images, and compare the outputs of their modules.

It is done with the weights of the checkpoint, and again with random ones: a batch statistic of 0 or 1, a scale of 0 or
a bias of 0 in the checkpoint would hide a mistake. A second set of random weights is small, so that the epsilon of a
norm counts beside what it divides by.
"""

import dataclasses
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from jaxtyping import Float32

from convert.mapping import Plan, TableError
from convert.recipe import Recipe
from jaxcnn.cpu.device import cpu_device
from jaxcnn.errors import UserError

# Float32 sums in another order differ by about 1e-6 of the largest value; a wrong array by 1e-2 or more.
TOLERANCE = 1e-4

# Of the random weights: 1 keeps the size of what passes through; with 0.03 a variance is about 1e-3.
GAINS = (1.0, 0.03)

Images = Float32[np.ndarray, "batch height width channel"]
State = Mapping[str, torch.Tensor]
# What each module gave at each of its calls: the arrays in whatever it returned.
Calls = Mapping[str, Sequence[Sequence[np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Block:
    """Two modules with the same parameters, which must have the same outputs.

    Attributes:
        torch_module: its name in the PyTorch network; empty is the network itself.
        flax_module: its path in the Flax model; empty is the model itself.
    """

    torch_module: str
    flax_module: str

    @property
    def name(self) -> str:
        """In the report."""
        return self.torch_module or "output"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference between the outputs of a block.

    Attributes:
        shape: of PyTorch's outputs.
        absolute: the largest of any value.
        relative: that, over the largest magnitude in PyTorch's outputs. NaN where both sides give zeros alone, since
            a block without outputs proves nothing.
        detail: where they differ, what both sides gave.
    """

    block: str
    shape: tuple[int, ...]
    absolute: float
    relative: float
    detail: str = ""

    @property
    def within_tolerance(self) -> bool:
        """Tell whether the block is proven; NaN never is."""
        return self.relative <= TOLERANCE

    @property
    def says_nothing(self) -> bool:
        """Tell whether both outputs are all zeros."""
        return self.absolute == 0 and math.isnan(self.relative)


def shared_entries(network: torch.nn.Module) -> dict[str, str]:
    """The entries of a state_dict that are the same parameter as an earlier one, and which."""
    first: dict[int, str] = {}
    shared = {}
    for key, tensor in network.state_dict(keep_vars=True).items():
        if (name := first.setdefault(id(tensor), key)) != key:
            shared[key] = name
    return shared


def redrawn(network: torch.nn.Module, state: State, shared: Mapping[str, str], gain: float) -> dict[str, torch.Tensor]:
    """The state with random parameters and batch statistics; all else, such as tables of positions, stays."""
    random = torch.Generator().manual_seed(0)
    learnt = dict(network.named_parameters(remove_duplicate=False))

    def draw(key: str, tensor: torch.Tensor) -> torch.Tensor:
        name = key.rpartition(".")[2]
        if name == "running_var":
            return torch.empty_like(tensor).uniform_(0.5, 2, generator=random) * gain**2
        noise = torch.empty_like(tensor).normal_(generator=random)
        if tensor.ndim >= 2:
            return noise * gain * (2 / max(1, tensor[0].numel())) ** 0.5
        return 1 + 0.2 * noise if name == "weight" else 0.5 * gain * noise

    drawn = {
        key: draw(key, tensor) if key in learnt or key.rpartition(".")[2] in ("running_mean", "running_var") else tensor
        for key, tensor in state.items()
    }
    return drawn | {key: drawn[first] for key, first in shared.items()}


def prove(
    network: torch.nn.Module,
    recipe: Recipe,
    plan: Plan,
    state: State,
    images: Images,
    *,
    gains: Sequence[float] = GAINS,
    source: object = "the weights",
) -> tuple[Difference, ...]:
    """Run both in inference mode, in float32 on the CPU: with the state, and with random ones.

    Args:
        state: of the checkpoint; the network has it in the end. A block that it gives zeros in, such as a residual
            that has not been trained yet, is proven by the random states.
        gains: of the random states.
        source: where the state comes from, for messages.

    Returns:
        The largest difference of each block, in the order in which PyTorch's modules end.

    Raises:
        TableError: an entry that becomes a leaf changes nothing that could be compared.
        UserError: with the state PyTorch's own network doesn't give finite numbers.
    """
    # The network's own tensors would change with it.
    state = {key: tensor.clone() for key, tensor in state.items()}
    shared = shared_entries(network)
    states = [redrawn(network, state, shared, gain) for gain in gains]
    worst: dict[str, Difference] = {}
    for number, tensors in enumerate((*states, state)):
        network.load_state_dict(tensors)
        expected = torch_calls(network, images)
        if number == len(states) and (block := _first_not_finite(expected)) is not None:
            raise UserError(
                f"{source}: PyTorch's own {block or 'network'} gives infinite or NaN values with these numbers; give an"
                " earlier checkpoint"
            )
        variables = plan.to_flax({key: tensor.numpy() for key, tensor in tensors.items()})
        found = flax_calls(recipe, variables, images)
        blocks = find_blocks(plan, expected, found)
        if number == 0:
            check_seen(network, plan, blocks, expected, images)
        for difference in differences(dict.fromkeys(blocks.values()), expected=expected, found=found):
            before = worst.setdefault(difference.block, difference)
            if before.says_nothing or not (difference.says_nothing or difference.relative <= before.relative):
                worst[difference.block] = difference
    return tuple(worst.values())


def _first_not_finite(calls: Calls) -> str | None:
    for name, outputs in calls.items():
        if not all(np.isfinite(array).all() for call in outputs for array in call):
            return name
    return None


def find_blocks(plan: Plan, torch_modules: Iterable[str], flax_modules: Iterable[str]) -> dict[str, Block]:
    """For each entry that becomes a leaf the smallest block around it: both of its modules run, and hold the same.

    Where a layer of the one is no module of the other (the projections of an attention), that is what lies around it;
    in the end the whole network. The network itself comes last, as a block of its own.
    """
    leaves_of: dict[str, set[str]] = {}
    for move in plan.moves:
        for module in _around(move.key.rpartition(".")[0], "."):
            leaves_of.setdefault(module, set()).add(move.path)
    below: dict[str, set[str]] = {}
    for path in plan.expected:
        for module in _around(_module_of(path), "/"):
            below.setdefault(module, set()).add(path)
    run_torch, run_flax = set(torch_modules), set(flax_modules)

    def block_of(key: str) -> Block:
        for module in _around(key.rpartition(".")[0], "."):
            # The innermost module that all of these leaves lie in.
            common = posixpath.commonpath([f"/{_module_of(path)}" for path in leaves_of[module]]).strip("/")
            if module in run_torch and common in run_flax and below[common] == leaves_of[module]:
                return Block(module, common)
        return Block("", "")

    found = {move.key: block_of(move.key) for move in plan.moves}
    order = {name: place for place, name in enumerate(torch_modules)}
    return dict(sorted(found.items(), key=lambda item: order[item[1].torch_module])) | {"": Block("", "")}


def _around(module: str, separator: str) -> Iterator[str]:
    """The module, and all that it lies in, the network itself last."""
    while module:
        yield module
        module = module.rpartition(separator)[0]
    yield ""


def _module_of(path: str) -> str:
    """params/layer1/conv/kernel is of the module layer1/conv."""
    return path.partition("/")[2].rpartition("/")[0]


def check_seen(
    network: torch.nn.Module, plan: Plan, blocks: Mapping[str, Block], expected: Calls, images: Images
) -> None:
    """Raise a TableError if an entry changes nothing; those of a PyTorch layer that runs by itself needn't be tried."""
    unseen = []
    for key in plan.paths:
        owner, block = key.rpartition(".")[0], blocks[key].torch_module
        if owner == block and type(network.get_submodule(owner)).__module__.startswith("torch.nn.modules"):
            continue
        tensor = network.state_dict()[key]
        before = tensor.clone()
        tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
        after = torch_calls(network, images, (block,))[block]
        tensor.copy_(before)
        if _same(after, expected[block]):
            unseen.append(key)
    if unseen:
        raise TableError(
            f"{', '.join(unseen[:10])}: changes no output of the PyTorch network, so it can't be proven;"
            " leave it out of the table with a LeftOut"
        )


def _same(calls: Sequence[Sequence[np.ndarray]], others: Sequence[Sequence[np.ndarray]]) -> bool:
    arrays, other_arrays = ([array for call in of for array in call] for of in (calls, others))
    return all(map(np.array_equal, arrays, other_arrays))


def differences(blocks: Iterable[Block], *, expected: Calls, found: Calls) -> tuple[Difference, ...]:
    """Between what PyTorch's modules gave and what Flax's did, block by block."""
    return tuple(
        _difference(block, expected.get(block.torch_module, ()), found.get(block.flax_module, ())) for block in blocks
    )


def _difference(
    block: Block, expected: Sequence[Sequence[np.ndarray]], found: Sequence[Sequence[np.ndarray]]
) -> Difference:
    if len(expected) != len(found):
        detail = f"runs {len(expected)} times in PyTorch, {len(found)} times in Flax"
        return Difference(block.name, (), math.inf, math.inf, detail)
    pairs = []
    for ours, theirs in zip(found, expected, strict=True):
        # A module of PyTorch may give more than is of use, such as the weights of an attention.
        if len(ours) > len(theirs) or not ours or (block.torch_module == "" and len(ours) < len(theirs)):
            detail = f"gives {len(theirs)} arrays in PyTorch, {len(ours)} in Flax"
            return Difference(block.name, (), math.inf, math.inf, detail)
        pairs += list(zip(theirs, ours, strict=False))
    return max((_of_arrays(block.name, *pair) for pair in pairs), key=lambda d: (math.isnan(d.relative), d.relative))


def _of_arrays(block: str, expected: np.ndarray, found: np.ndarray) -> Difference:
    # PyTorch's channels are the second axis of an image, and the last one of a row of tokens.
    views = [view for view in _views(expected) if view.shape == found.shape]
    if not views:
        detail = f"has the shape {expected.shape} in PyTorch, {found.shape} in Flax"
        return Difference(block, expected.shape, math.inf, math.inf, detail)
    absolute, view = min(((float(np.abs(view - found).max()), view) for view in views), key=lambda pair: pair[0])
    largest = float(np.abs(expected).max())
    relative = absolute / largest if largest else math.inf if absolute else math.nan
    detail = "" if relative <= TOLERANCE else f"PyTorch gives {_statistics(view)}; Flax {_statistics(found)}"
    return Difference(block, view.shape, absolute, relative, detail)


def _views(array: np.ndarray) -> tuple[np.ndarray, ...]:
    return (array, np.moveaxis(array, 1, -1)) if array.ndim > 2 else (array,)


def _statistics(array: np.ndarray) -> str:
    return f"mean {array.mean():.3g}, deviation {array.std():.3g}, {array.min():.3g} to {array.max():.3g}"


def torch_calls(network: torch.nn.Module, images: Images, modules: Iterable[str] | None = None) -> Calls:
    """What these modules of the network give, or all, in the order in which they first end."""
    calls: dict[str, list[list[np.ndarray]]] = {}

    def keep(name: str, _module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        # A copy, since the next layer may work in place.
        calls.setdefault(name, []).append([tensor.numpy(force=True).copy() for tensor in tensors])

    names = (
        dict(network.named_modules()) if modules is None else {name: network.get_submodule(name) for name in modules}
    )
    hooks = [module.register_forward_hook(partial(keep, name)) for name, module in names.items()]
    try:
        with torch.no_grad():
            network.eval()(torch.from_numpy(images).movedim(-1, 1).contiguous())
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def flax_calls(recipe: Recipe, variables: Mapping[str, Any], images: Images) -> Calls:
    """What every module of the model gives, by its path.

    Raises:
        UserError: JAX_PLATFORMS leaves out the CPU.
    """
    with jax.default_device(cpu_device("is where PyTorch computes")), jax.default_matmul_precision("highest"):
        calls = jax.device_get(_capture(recipe.model, tuple(recipe.arguments.items()), variables, images))
        arrays = {path: [jax.tree.leaves(output) for output in outputs] for path, outputs in calls.items()}
        return arrays | {"": [[np.asarray(recipe.finish(array)) for array in call] for call in arrays[""]]}


@partial(jax.jit, static_argnums=(0, 1))
def _capture(
    model: nn.Module, arguments: tuple[tuple[str, Any], ...], variables: Mapping[str, Any], images: jax.Array
) -> Mapping[str, tuple[Any, ...]]:
    _, captured = model.apply(variables, images, **dict(arguments), capture_intermediates=True)
    calls = flatten_dict(captured["intermediates"], sep="/")
    return {path.removesuffix("__call__").removesuffix("/"): outputs for path, outputs in calls.items()}
