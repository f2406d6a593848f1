"""Build this project's own models from the sizes in a checkpoint, and make their recipes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import torch

from convert import networks
from convert.recipe import Recipe
from convert.rules import UNET, resnet_table, simplecnn_table, unet_classifier_table
from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.errors import UserError
from jaxcnn.models.resnet import DEPTHS, ResNet, ResNetClassifier

Tensors = Mapping[str, torch.Tensor]

# A layer of more is none of these networks.
_MOST_FEATURES = 2**16

# The fields of a model that are sizes of a checkpoint's arrays: an entry, and the axis.
_UNET_SIZES = {
    "in_channels": ("encoder1.enc1conv1.weight", 1),
    "out_channels": ("conv.weight", 0),
    "features": ("encoder1.enc1conv1.weight", 0),
}
_SIMPLECNN_SIZES = {
    "classes": ("final.8.weight", 0),
    "stem_features": (("conv1.0.weight", 0), ("conv1.4.weight", 0)),
    "squeeze_features": ("SEBlock1.3.weight", 0),
    "skip_features": ("sepconv.weight", 0),
    "head_features": ("final.1.weight", 0),
    "hidden_features": ("final.6.weight", 0),
}
_BELOW_HEAD_SIZES = {
    "in_channels": ("unet.encoder1.enc1conv1.weight", 1),
    "features": ("unet.encoder1.enc1conv1.weight", 0),
}
_REFERENCE_HEAD_SIZES = {
    **_BELOW_HEAD_SIZES,
    "classes": ("classifier.8.weight", 0),
    "head_features": ("classifier.0.weight", 0),
    "hidden_features": ("classifier.5.weight", 0),
}
_POOLED_HEAD_SIZES = {**_BELOW_HEAD_SIZES, "classes": ("classifier.2.weight", 0)}
_RESNET_SIZES = {"classes": ("fc.weight", 0), "features": ("conv1.weight", 0)}


def unet_of(tensors: Tensors) -> UNet:
    """The hub's U-Net, of the sizes in a checkpoint."""
    return UNet(**_sizes(tensors, _UNET_SIZES))


def simplecnn_of(tensors: Tensors, gate: Literal["softmax", "sigmoid"] = "softmax") -> SimpleCNN:
    """The reference project's SimpleCNN, of the sizes in a checkpoint, which doesn't name its gate."""
    return SimpleCNN(gate=gate, **_sizes(tensors, _SIMPLECNN_SIZES))


def unet_classifier_of(tensors: Tensors) -> UNetClassifier:
    """The reference project's transfer model, or that with a pooled head, of the sizes in a checkpoint."""
    if "classifier.2.weight" in tensors:
        return UNetClassifier(head="pooled", **_sizes(tensors, _POOLED_HEAD_SIZES))
    return UNetClassifier(**_sizes(tensors, _REFERENCE_HEAD_SIZES))


def resnet_of(name: str, tensors: Tensors) -> ResNet:
    """The torchvision ResNet of this name, of the sizes in a checkpoint."""
    block, blocks = DEPTHS[name]
    return ResNet(block=block, blocks=blocks, **_sizes(tensors, _RESNET_SIZES))


def _sizes(tensors: Tensors, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are found; those of a wrong checkpoint keep their usual values, and the layout tells."""

    def size(entry: Any) -> Any:
        if isinstance(entry[0], tuple):
            found = tuple(size(one) for one in entry)
            return None if None in found else found
        key, axis = entry
        width = tensors[key].shape[axis] if key in tensors and tensors[key].ndim > axis else None
        return width if width is not None and width <= _MOST_FEATURES else None

    return {field: found for field, entry in entries.items() if (found := size(entry))}


def recipe_for(model: nn.Module, image_size: int, normalization: str, classes: tuple[str, ...] = ()) -> Recipe:
    """Make the recipe of a model that this project trains or reads, for square images of this size.

    Raises:
        UserError: it is none of them, or has not as many classes as names are given.
    """
    if type(model) not in _RECIPES:
        raise UserError(f"{type(model).__name__}: has no known PyTorch network; write a recipe of your own")
    if classes and len(classes) != (count := getattr(model, "classes", 0)):
        raise UserError(f"{', '.join(classes)}: gives {len(classes)} names for {count} classes; name each class once")
    fields = _RECIPES[type(model)](model, image_size)
    return Recipe(model=model, normalization=normalization, **fields | ({"classes": classes} if classes else {}))


def _reference_classes(model: SimpleCNN | UNetClassifier) -> tuple[str, ...]:
    """The reference project reads the data set's folders in the order of their names."""
    return CLASSES if model.classes == len(CLASSES) else ()


def _unet(model: UNet, _image_size: int) -> dict[str, Any]:
    return {
        "build_network": partial(networks.HubUNet, model.in_channels, model.out_channels, model.features),
        "table": UNET,
        "finish": nn.sigmoid,
        "image_shape": (96, 128, model.in_channels),
        "note": "the model returns mask logits; the PyTorch network returns their sigmoid",
    }


def _simplecnn(model: SimpleCNN, image_size: int) -> dict[str, Any]:
    # conv1 and conv2 take 2 and 4 pixels, the max-pools halve and quarter, conv3 takes 5 and skips each other one.
    side = max(1, (((image_size - 2) // 2 - 4) // 4 - 5) // 2 + 1)
    sizes = (model.stem_features, model.squeeze_features, model.skip_features, model.head_features)
    build = partial(networks.ReferenceSimpleCNN, model.classes, *sizes, model.hidden_features)
    return {
        "build_network": partial(build, side**2, model.gate),
        "table": simplecnn_table(model.head_features, side),
        "image_shape": (image_size, image_size, 1),
        "classes": _reference_classes(model),
        "note": "the model returns logits; the reference network returns their softmax",
    }


def _unet_classifier(model: UNetClassifier, image_size: int) -> dict[str, Any]:
    side = max(1, image_size // 16 - 7)
    sizes = (model.classes, model.features, model.head_features, model.hidden_features)
    return {
        "build_network": partial(networks.ReferenceUNetClassifier, *sizes, side**2, model.head, model.in_channels),
        "table": unet_classifier_table(model.head, model.head_features, side),
        "image_shape": (image_size, image_size, 1),
        "classes": _reference_classes(model),
        "note": "the model returns logits; it has no decoder, whose arrays are left out",
    }


def _resnet(model: ResNet, image_size: int) -> dict[str, Any]:
    return {
        "build_network": partial(networks.ResNet, model.classes, model.block, model.blocks, model.features),
        "table": resnet_table(),
        "image_shape": (image_size, image_size, 3),
        "proof_shape": (64, 96, 3),
        "note": "the model takes grey images, too, and repeats them to three channels",
    }


def _resnet_classifier(model: ResNetClassifier, image_size: int) -> dict[str, Any]:
    of_resnet = _resnet(ResNet(model.classes, model.block, model.blocks, model.features), image_size)
    return of_resnet | {"table": resnet_table("resnet/", "classifier")}


_RECIPES: dict[type[nn.Module], Callable[[Any, int], dict[str, Any]]] = {
    UNet: _unet,
    SimpleCNN: _simplecnn,
    UNetClassifier: _unet_classifier,
    ResNet: _resnet,
    ResNetClassifier: _resnet_classifier,
}
