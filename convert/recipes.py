"""What converting a network takes: both sides of it, the table between them, and the blocks to compare."""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import torch

from convert.mapping import Table
from convert.networks import HubUNet, ReferenceSimpleCNN, ReferenceUNetClassifier
from convert.parity import Block
from convert.rules import UNET, simplecnn_table, unet_classifier_table
from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.data.normalization import NormalizationName


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to convert one network.

    Attributes:
        build_network: makes the PyTorch module.
        model: the Flax module.
        table: from the one's state_dict to the other's tree.
        blocks: compared one by one.
        image_shape: (height, width, channel) of the images they are compared on.
        normalization: of the images that the weights were trained with, as far as is known.
        note: what else a user of the weights should know.
    """

    build_network: Callable[[], torch.nn.Module]
    model: nn.Module
    table: Table
    blocks: tuple[Block, ...]
    image_shape: tuple[int, int, int]
    normalization: NormalizationName
    note: str


_ENCODER = ("encoder1", "encoder2", "encoder3", "encoder4", "bottleneck")
_DECODER = ("decoder4", "decoder3", "decoder2", "decoder1")


def unet(model: UNet, normalization: NormalizationName) -> Recipe:
    """The hub's U-Net."""
    return Recipe(
        build_network=partial(HubUNet, model.in_channels, model.out_channels, model.features),
        model=model,
        table=UNET,
        blocks=(
            *(Block(name, name, name) for name in (*_ENCODER, *_DECODER)),
            Block("mask logits", "conv", "conv"),
            Block("mask", "", "", finish=nn.sigmoid),
        ),
        # Not square, so that height and width can't be confused.
        image_shape=(96, 128, model.in_channels),
        normalization=normalization,
        note="the model returns mask logits; the PyTorch network returns their sigmoid",
    )


def simplecnn(model: SimpleCNN) -> Recipe:
    """The reference project's SimpleCNN."""
    modules = {
        "conv1.0": "conv1",
        "conv1.1": "norm1",
        "conv1.4": "conv2",
        "conv1.5": "norm2",
        "SEBlock1.3": "squeeze_excite/reduce",
        "SEBlock1.5": "squeeze_excite/expand",
        "sepconv": "shortcut",
        "module1.0": "residual_conv",
        "module1.2": "residual_project",
        "final.1": "conv3",
        "final.2": "norm3",
        "final.6": "hidden",
        "final.8": "classifier",
    }
    return Recipe(
        build_network=partial(
            ReferenceSimpleCNN,
            model.classes,
            model.stem_features,
            model.squeeze_features,
            model.skip_features,
            model.head_features,
            model.hidden_features,
        ),
        model=model,
        table=simplecnn_table(model.head_features),
        blocks=tuple(Block(flax_module, torch_module, flax_module) for torch_module, flax_module in modules.items()),
        image_shape=(128, 128, 1),
        normalization="none",
        note="the model returns logits; the reference network returns their softmax",
    )


def unet_classifier(model: UNetClassifier, image_size: int = 128) -> Recipe:
    """The reference project's transfer model, for square images of this size."""
    modules = {
        "classifier.0": "conv",
        "classifier.1": "norm",
        "classifier.5": "hidden",
        "classifier.8": "classifier",
    }
    return Recipe(
        build_network=partial(
            ReferenceUNetClassifier,
            model.classes,
            model.features,
            model.head_features,
            model.hidden_features,
            flattened_size=(image_size // 16 - 7) ** 2,
        ),
        model=model,
        table=unet_classifier_table(model.head_features),
        blocks=(
            *(Block(name, f"unet.{name}", f"unet/{name}") for name in _ENCODER),
            *(Block(flax_module, torch_module, flax_module) for torch_module, flax_module in modules.items()),
        ),
        image_shape=(image_size, image_size, 1),
        normalization="none",
        note="the model returns logits; it has no decoder, whose arrays are left out",
    )
