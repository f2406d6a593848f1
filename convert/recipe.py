"""Define a conversion: the networks on both sides, and the table between them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np
import torch
from jaxtyping import Float32

from convert.mapping import Table
from jaxcnn.models.table import variable_shapes


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to convert one network.

    Attributes:
        image_shape: (height, width, channel) of the images that the network is for.
        table: from the one's state_dict to the other's tree; None lets one be proposed.
        arguments: of the Flax module beside the images, with which it infers.
        finish: what the Flax model leaves to its caller, such as the softmax that the PyTorch network ends with.
        normalization: of the images that the weights were trained with, as far as is known.
        proof_shape: of the random images that both are compared on, those of `image_shape` if not given. The best are
            not square, so that height and width can't be confused, and small.
        classes: names of the logits, as far as they are known.
        note: what else a user of the weights should know.
    """

    build_network: Callable[[], torch.nn.Module]
    model: nn.Module
    image_shape: tuple[int, int, int]
    table: Table | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"train": False})
    finish: Callable[[Any], Any] = lambda outputs: outputs
    normalization: str = "none"
    proof_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()
    note: str = ""

    def random_images(self, count: int = 2) -> Float32[np.ndarray, "count height width channel"]:
        """Draw normal noise, which has no symmetry that could hide a flipped or transposed kernel."""
        shape = (count, *(self.proof_shape or self.image_shape))
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def shapes(self) -> dict[str, Any]:
        """Return the shapes and types of the Flax model's variables without computing any."""
        return variable_shapes(self.model, self.image_shape, arguments=self.arguments)
