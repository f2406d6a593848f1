"""From a checkpoint to variables that are proven to compute the same."""

import dataclasses

import torch

from convert.checkpoint import Checkpoint, conform, converted_types
from convert.mapping import Mapped, map_arrays
from convert.parity import Difference, compare, random_images
from convert.recipes import Recipe
from jaxcnn.models.table import variable_shapes


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What came out, and the proof.

    Attributes:
        mapped: the filled tree.
        converted_types: how many arrays had which other type than float32.
        differences: of each block.
    """

    mapped: Mapped
    converted_types: dict[str, int]
    differences: tuple[Difference, ...]

    @property
    def unproven(self) -> tuple[Difference, ...]:
        """The blocks over the tolerance."""
        return tuple(difference for difference in self.differences if not difference.within_tolerance)


def convert(checkpoint: Checkpoint, recipe: Recipe) -> Conversion:
    """Map the checkpoint and compare both networks on random images.

    Raises:
        UserError: the checkpoint is not one of this network.
    """
    with torch.device("meta"):  # Keys and shapes, no numbers: they are the checkpoint's.
        network = recipe.build_network()
    layout = network.state_dict()
    tensors = conform(checkpoint, layout)
    arrays = {key: tensor.numpy(force=True) for key, tensor in tensors.items()}
    mapped = map_arrays(recipe.table, arrays, variable_shapes(recipe.model, recipe.image_shape))
    network.load_state_dict(tensors, strict=True, assign=True)
    images = random_images(recipe.image_shape)
    differences = compare(recipe.blocks, network, recipe.model, mapped.variables, images)
    return Conversion(mapped, converted_types(checkpoint, layout), differences)
