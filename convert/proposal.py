"""Propose a table for two networks from the order in which their layers run, from shapes and from names.

It is no more than a guess until it is proven. Where the first block that differs would agree with another layer of the
same shapes in its place, or with its numbers in another order, the table is changed so.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import islice, product
from typing import Any

import flax.linen as nn
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from scipy.optimize import linear_sum_assignment
from torch.utils._python_dispatch import TorchDispatchMode

from convert.mapping import COUNTER, LeftOut, Rule, Table, Transform, plan
from convert.proof import differences, find_blocks, flax_calls, redrawn, shared_entries, torch_calls
from convert.recipe import Recipe
from convert.transforms import (
    Flattened,
    FromHeads,
    Heads,
    Part,
    channels_last,
    conv_kernel,
    dense_kernel,
    flipped_conv_kernel,
    unchanged,
)
from jaxcnn.errors import UserError

# What Flax calls PyTorch's names; all others are the same on both sides.
_LEAF_NAMES = {
    "weight": ("kernel", "scale", "embedding"),
    "bias": ("bias",),
    "running_mean": ("mean",),
    "running_var": ("var",),
}
_IMPOSSIBLE = 1e9
# Of changes to one block: each is a run of the Flax model.
_MOST_TRIES = 200


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of a state_dict, or one of the parts that are stacked in it."""

    key: str
    shape: tuple[int, ...]
    part: int = 0
    parts: int = 1


@dataclasses.dataclass(frozen=True)
class TorchLayer:
    """A module with entries of its own, in the order of the calls.

    Attributes:
        entries: by their last name.
        flattened: (channel, height, width) of what was flattened before it.
        repeats: whether all of its entries are parameters of earlier layers; Flax may have none of its own.
    """

    name: str
    entries: Mapping[str, Entry]
    flattened: tuple[int, int, int] | None = None
    repeats: bool = False


@dataclasses.dataclass(frozen=True)
class FlaxLayer:
    """A module with leaves of its own: their shapes by their paths.

    Attributes:
        flips: whether it is a transposed convolution that flips its kernel.
    """

    name: str
    leaves: Mapping[str, tuple[int, ...]]
    flips: bool = False


Rules = tuple[Rule, ...]
# For each Flax layer: the PyTorch layer that fills it, and which of the ways to do so.
Choice = dict[int, tuple[int, int]]


def propose_table(recipe: Recipe) -> Table:
    """Propose a table that makes as many blocks agree as possible.

    Raises:
        UserError: a layer finds none on the other side that has its shapes.
    """
    network = recipe.build_network()
    torch_layers, never_run = _torch_layers(network, recipe)
    flax_layers = _flax_layers(recipe)
    torch_layers = [layer for one in torch_layers for layer in _split(one, flax_layers)]
    ways = {
        (i, j): found
        for (i, one), (j, other) in product(enumerate(torch_layers), enumerate(flax_layers))
        if (found := list(_ways(one, other)))
    }
    costs = np.full((len(torch_layers), len(flax_layers)), _IMPOSSIBLE)
    for i, j in ways:
        costs[i, j] = abs(i - j) - 10 * _alike(torch_layers[i].name, flax_layers[j].name)
    pairs = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(costs), strict=True) if costs[i, j] < _IMPOSSIBLE]
    _check_all_paired(torch_layers, flax_layers, pairs)
    left_out = tuple(LeftOut(re.escape(key), "the PyTorch network doesn't run it") for key in never_run)
    choice = _repaired({j: (i, 0) for i, j in pairs}, ways, left_out, network, recipe)
    return (*_table(choice, ways), *left_out)


def _check_all_paired(
    torch_layers: Sequence[TorchLayer], flax_layers: Sequence[FlaxLayer], pairs: Sequence[tuple[int, int]]
) -> None:
    paired = {i for i, _ in pairs}
    alone = [layer.name for i, layer in enumerate(torch_layers) if i not in paired and not layer.repeats]
    empty = [layer.name for j, layer in enumerate(flax_layers) if j not in {j for _, j in pairs}]
    if alone or empty:
        raise UserError(
            "no table could be proposed: no layer of the other network has the shapes of"
            f" {', '.join((*alone, *empty))}; give a table"
        )


def _table(choice: Choice, ways: Mapping[tuple[int, int], Sequence[Rules]]) -> Rules:
    return tuple(rule for j, (i, way) in choice.items() for rule in ways[i, j][way])


def _repaired(
    choice: Choice,
    ways: Mapping[tuple[int, int], Sequence[Rules]],
    left_out: Sequence[LeftOut],
    network: torch.nn.Module,
    recipe: Recipe,
) -> Choice:
    """The choice, with the first block that differs changed as long as that makes more blocks agree."""
    images, expected_tree = recipe.random_images(count=1), recipe.shapes()
    layout, shared = network.state_dict(), shared_entries(network)
    shapes = {key: tuple(tensor.shape) for key, tensor in layout.items()}
    state = redrawn(network, layout, shared, gain=1.0)
    network.load_state_dict(state)
    arrays = {key: tensor.numpy() for key, tensor in state.items()}
    expected = torch_calls(network, images)

    def judge(choice: Choice) -> tuple[int, str | None]:
        """How many blocks agree, and the first Flax module that doesn't."""
        planned = plan((*_table(choice, ways), *left_out), shapes, expected_tree, shared)
        found = flax_calls(recipe, planned.to_flax(arrays), images)
        blocks = list(dict.fromkeys(find_blocks(planned, expected, found).values()))
        results = differences(blocks, expected=expected, found=found)
        wrong = [block for block, result in zip(blocks, results, strict=True) if not result.within_tolerance]
        return len(blocks) - len(wrong), wrong[0].flax_module if wrong else None

    best, wrong = judge(choice)
    while wrong is not None:
        for other in islice(_changes(choice, ways, wrong), _MOST_TRIES):
            agreeing, still_wrong = judge(other)
            if agreeing > best:
                choice, best, wrong = other, agreeing, still_wrong
                break
        else:
            return choice
    return choice


def _changes(choice: Choice, ways: Mapping[tuple[int, int], Sequence[Rules]], module: str) -> Iterator[Choice]:
    """Choices that differ in the layers of this Flax module: another order of numbers, or another PyTorch layer."""
    for j, (i, way) in choice.items():
        inside = {rule.path.partition("/")[2].rpartition("/")[0] for rule in ways[i, j][way]}
        # Where the whole network alone differs, any layer may be the one.
        if module and not any(f"{path}/".startswith(f"{module}/") for path in inside):
            continue
        yield from (choice | {j: (i, other)} for other in range(len(ways[i, j])) if other != way)
        for other, (taken, _) in choice.items():
            if other != j and (taken, j) in ways and (i, other) in ways:
                yield choice | {j: (taken, 0), other: (i, 0)}


def _alike(name: str, other: str) -> bool:
    """Whether the names hardly differ, but for what separates their parts."""
    plain, other_plain = (re.sub(r"[^a-z0-9]", "", of.lower()) for of in (name, other))
    return SequenceMatcher(None, plain, other_plain).ratio() > 0.9


class _Flattens(TorchDispatchMode):
    """Watches for images that are flattened; `shapes` gives what had so many numbers last."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: dict[int, tuple[int, int, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if "view" in str(function) and isinstance(output, torch.Tensor) and output.ndim == 2 and args[0].ndim in (3, 4):
            channels, *space = args[0].shape[1:]
            height, width = (1, *space)[-2:]
            if height * width > 1:
                self.shapes[channels * height * width] = (channels, height, width)
        return output


def _torch_layers(network: torch.nn.Module, recipe: Recipe) -> tuple[list[TorchLayer], list[str]]:
    """The layers in the order in which they end, and the entries of those that never run."""
    flattens = _Flattens()
    flattened: dict[str, tuple[int, int, int] | None] = {}

    def before(name: str, module: torch.nn.Module) -> None:
        if isinstance(module, torch.nn.Linear):
            flattened[name] = flattens.shapes.get(module.in_features)

    hooks = [
        module.register_forward_pre_hook(lambda module, _, name=name: before(name, module))
        for name, module in network.named_modules()
    ]
    with flattens:
        order = list(torch_calls(network, recipe.random_images(count=1)))
    for hook in hooks:
        hook.remove()
    entries: dict[str, dict[str, Entry]] = {name: {} for name in order}
    never_run, shared = [], shared_entries(network)
    for key, tensor in network.state_dict().items():
        if re.fullmatch(COUNTER.pattern, key):
            continue
        owner, _, name = key.rpartition(".")
        parent = owner.rpartition(".")[0]
        if owner not in entries and isinstance(network.get_submodule(parent), torch.nn.MultiheadAttention):
            # Its output projection is a module that isn't called.
            owner, name = parent, f"out_proj.{name}"
        if owner in entries:
            entries[owner][name] = Entry(key, tuple(tensor.shape))
        elif key not in shared:  # Or it is another name of a module that runs.
            never_run.append(key)
    layers = [
        TorchLayer(name, of, flattened.get(name), all(entry.key in shared for entry in of.values()))
        for name, of in entries.items()
        if of
    ]
    return layers, never_run


def _split(layer: TorchLayer, flax_layers: Sequence[FlaxLayer]) -> list[TorchLayer]:
    """An attention as query, key, value and output; a stack of three projections that Flax has one by one, too."""
    name, weight = next(((n, layer.entries[n]) for n in ("in_proj_weight", "weight") if n in layer.entries), ("", None))
    if weight is None or len(weight.shape) != 2 or weight.shape[0] != 3 * weight.shape[1]:
        return [layer]
    if name == "weight" and any(
        weight.shape[::-1] == shape for other in flax_layers for shape in other.leaves.values()
    ):
        return [layer]
    stacked = {n: e for n, e in layer.entries.items() if not n.startswith("out_proj.")}
    parts = [
        TorchLayer(
            f"{layer.name}.{part}",
            {
                n.removeprefix("in_proj_"): Entry(e.key, (e.shape[0] // 3, *e.shape[1:]), place, 3)
                for n, e in stacked.items()
            },
        )
        for place, part in enumerate(("query", "key", "value"))
    ]
    rest = {n.removeprefix("out_proj."): e for n, e in layer.entries.items() if n.startswith("out_proj.")}
    return [*parts, *([TorchLayer(f"{layer.name}.out", rest)] if rest else [])]


def _flax_layers(recipe: Recipe) -> list[FlaxLayer]:
    """The layers in the order in which they end."""
    modules: dict[str, nn.Module] = {}

    def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            modules.setdefault("/".join(context.module.path), context.module)
        return output

    with nn.intercept_methods(watch):
        shapes = recipe.shapes()
    leaves: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in modules}
    for path, leaf in flatten_dict(shapes, sep="/").items():
        leaves.setdefault(path.partition("/")[2].rpartition("/")[0], {})[path] = leaf.shape
    return [
        FlaxLayer(name, of, isinstance(module := modules.get(name), nn.ConvTranspose) and not module.transpose_kernel)
        for name, of in leaves.items()
        if of
    ]


def _ways(layer: TorchLayer, other: FlaxLayer) -> Iterator[Rules]:
    """The sets of rules by which the entries of the one fill the leaves of the other, the likeliest first."""
    if len(layer.entries) != len(other.leaves):
        return
    options = []
    free = dict(other.leaves)
    for name, entry in layer.entries.items():
        wanted = _LEAF_NAMES.get(name, (name,))
        path = next((path for path in free if path.rpartition("/")[2] in wanted), None)
        if path is None:
            return
        transforms = _transforms(entry, free.pop(path), layer.flattened, flips=other.flips)
        options.append([Rule(re.escape(entry.key), path, transform) for transform in transforms])
    yield from product(*options)


def _transforms(
    entry: Entry, shape: tuple[int, ...], flattened: tuple[int, int, int] | None, *, flips: bool
) -> list[Transform]:
    """Those that give the shape, the likeliest first; none that moves the numbers as an earlier one does."""
    kernels = [flipped_conv_kernel, conv_kernel] if flips else [conv_kernel, flipped_conv_kernel]
    known: list[Any] = [unchanged]
    if len(entry.shape) > 2:
        known = [*kernels, channels_last, unchanged]
    elif len(entry.shape) == 2:
        known = [*([Flattened(*flattened)] if flattened else []), dense_kernel, unchanged]
    if len(shape) == len(entry.shape) + 1:  # An axis for the heads of an attention.
        known = [Heads(shape[-2]), *([FromHeads(shape[0])] if len(shape) == 3 else [])]
    places = np.arange(int(np.prod(entry.shape))).reshape(entry.shape)
    found: list[tuple[Any, np.ndarray]] = []
    for transform in known:
        try:
            moved = transform(places)
        except (ValueError, IndexError):
            continue
        if moved.shape == shape and not any(np.array_equal(moved, other) for _, other in found):
            found.append((transform, moved))
    return [Part(entry.part, entry.parts, one) if entry.parts > 1 else one for one, _ in found]


def as_source(table: Table) -> str:
    """The table as Python has it, to keep."""
    lines = ["TABLE = ("]
    for line in table:
        # Patterns are raw strings; none of these holds a quotation mark.
        if isinstance(line, LeftOut):
            lines.append(f'    LeftOut(r"{line.pattern}", "{line.reason}"),')
        else:
            transform = "" if line.transform is unchanged else f", {_as_source(line.transform)}"
            lines.append(f'    Rule(r"{line.pattern}", "{line.path}"{transform}),')
    return "\n".join([*lines, ")"])


def _as_source(transform: Any) -> str:
    if isinstance(transform, Part):
        return f"Part({transform.part}, {transform.parts}, {_as_source(transform.then)})"
    return repr(transform) if dataclasses.is_dataclass(transform) else transform.__name__
