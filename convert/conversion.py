"""Convert between a state_dict and a Flax tree in both directions, and prove that they compute the same."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from convert.checkpoint import Checkpoint, Fitted, fit
from convert.mapping import Plan, Table, TableError, left_out_keys, plan
from convert.proof import Difference, prove, shared_entries
from convert.proposal import propose_table
from convert.recipe import Recipe
from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The result of a conversion, and the proof.

    Attributes:
        state: of the PyTorch network, without what is left out.
        plan: where each entry went.
        table: that says so; the recipe's, or a proposed one.
        differences: of each block.
        fitted: how the checkpoint was made to fit, if there was one.
    """

    variables: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]
    plan: Plan
    table: Table
    differences: tuple[Difference, ...]
    fitted: Fitted | None = None

    @property
    def unproven(self) -> tuple[Difference, ...]:
        """List the blocks over the tolerance, in the order in which PyTorch's modules finish."""
        return tuple(difference for difference in self.differences if not difference.within_tolerance)


def convert(checkpoint: Checkpoint, recipe: Recipe) -> Conversion:
    """Map the checkpoint to the Flax model, and compare both networks on random images.

    Raises:
        UserError: the checkpoint is not one of this network, or no table could be proposed.
        TableError: the recipe's table doesn't fit its networks.
    """
    outline = _without_numbers(recipe)
    layout, shared = outline.state_dict(), shared_entries(outline)
    table = recipe.table if recipe.table is not None else propose_table(recipe)
    # A wrong checkpoint is refused by its names and shapes, before anything is made in its sizes.
    fitted = fit(checkpoint, layout, left_out_keys(table, layout), shared)
    planned = plan(table, {key: tuple(tensor.shape) for key, tensor in layout.items()}, recipe.shapes(), shared)
    images = recipe.random_images()
    differences = prove(recipe.build_network(), recipe, planned, fitted.tensors, images, source=checkpoint.path)
    variables = planned.to_flax({key: tensor.numpy() for key, tensor in fitted.tensors.items()})
    state = {key: tensor for key, tensor in fitted.tensors.items() if key not in fitted.absent}
    return Conversion(variables, state, planned, table, differences, fitted)


def _without_numbers(recipe: Recipe) -> torch.nn.Module:
    """The PyTorch network's names and shapes; with numbers where it can't be made without."""
    try:
        with torch.device("meta"):
            return recipe.build_network()
    except Exception:  # Whatever a network does with numbers while it is made.
        return recipe.build_network()


def convert_back(variables: Mapping[str, Any], recipe: Recipe, counters: Mapping[str, int] | None = None) -> Conversion:
    """Map the Flax model's variables to a state_dict of the PyTorch network, and compare both on random images.

    Args:
        counters: batches that BatchNorms have seen, as far as is known; 0 for the others.

    Raises:
        TableError: the recipe has no table, or it doesn't fit its networks.
        UserError: a parameter that PyTorch shares has two values.
    """
    if recipe.table is None:
        raise TableError("the recipe has no table, which the way back needs; keep the one that was proposed and proven")
    network = recipe.build_network()
    layout = network.state_dict()
    shared = shared_entries(network)
    shapes = {key: tuple(tensor.shape) for key, tensor in layout.items()}
    planned = plan(recipe.table, shapes, recipe.shapes(), shared)
    arrays = planned.to_torch(variables)
    for key, first in shared.items():
        if key in arrays and not np.array_equal(arrays[key], arrays[first]):
            raise UserError(f"{key} and {first} are one parameter in PyTorch, and differ in Flax; make them equal")
    known = {key: torch.from_numpy(array) for key, array in arrays.items()}
    known |= {key: torch.tensor((counters or {}).get(key, 0)) for key in layout if key.endswith("num_batches_tracked")}
    # What is left out has no numbers; the network needs some.
    whole = {key: known.get(key, torch.zeros(tensor.shape, dtype=tensor.dtype)) for key, tensor in layout.items()}
    differences = prove(network, recipe, planned, whole, recipe.random_images())
    written = {key: known[key] for key in layout if key in known}
    return Conversion(variables, written, planned, recipe.table, differences)
