"""The table of models. A new model is a file beside this one and a line here."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.errors import UserError
from jaxcnn.models.architecture import Architecture, FeatureMap
from jaxcnn.models.resnet import RESNETS, ResNet, ResNetClassifier
from jaxcnn.models.segmentation import SEGMENTATION
from jaxcnn.models.simplecnn import SIMPLECNN
from jaxcnn.models.unet import UNet
from jaxcnn.models.unet_classifier import UNET_CLASSIFIER

MODELS: dict[str, Architecture] = {
    "simplecnn": SIMPLECNN,
    "unet": UNET_CLASSIFIER,
    "segmentation": SEGMENTATION,
    **RESNETS,
}

# How a model is run is no part of what it is.
_HOW_IT_IS_RUN = ("parent", "name", "axis_name", "places", "dtype")


def feature_map_of(model: nn.Module) -> FeatureMap | None:
    """Where Grad-CAM looks in a network; None where there is no such place, or the table doesn't have the network."""
    kind = ResNetClassifier if type(model) is ResNet else type(model)
    return next((architecture.feature_map for architecture in MODELS.values() if architecture.module is kind), None)


def model_fields(model: nn.Module) -> dict[str, Any]:
    """The fields that distinguish the model from others of its class, as JSON."""
    return {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in _HOW_IT_IS_RUN}


def build_model(name: str, fields: Mapping[str, Any]) -> nn.Module:
    """The module that a manifest names by its class, from its `model_fields`.

    Raises:
        UserError: no module has that name.
    """
    found: list[type[nn.Module]] = [UNet, ResNet, *(architecture.module for architecture in MODELS.values())]
    modules = {module.__name__: module for module in found}
    if name not in modules:
        raise UserError(
            f"the model {name} is not in the table of models, which has {', '.join(modules)};"
            " run the command from the file that adds it"
        )
    # JSON knows no tuples; the fields of a module are hashable.
    return modules[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


def variable_shapes(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    method: str | None = None,
    arguments: Mapping[str, Any] = MappingProxyType({"train": False}),
) -> dict[str, Any]:
    """Shapes and types of the variables that this method of the model uses; nothing is computed."""
    images = jnp.zeros((1, *image_shape))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, **arguments, method=method))
