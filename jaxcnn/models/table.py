"""The models that weights are kept for: a module as JSON, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.models.simplecnn import SimpleCNN
from jaxcnn.models.unet import UNet
from jaxcnn.models.unet_classifier import UNetClassifier

MODELS: dict[str, type[nn.Module]] = {"SimpleCNN": SimpleCNN, "UNet": UNet, "UNetClassifier": UNetClassifier}


def model_fields(model: nn.Module) -> dict[str, Any]:
    """What distinguishes the model from others of its class, as JSON; how it is run is no part of it."""
    how_it_is_run = ("parent", "name", "axis_name", "places", "dtype")
    return {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in how_it_is_run}


def build_model(name: str, fields: Mapping[str, Any]) -> nn.Module:
    """The module that a manifest names, from its `model_fields`."""
    # JSON knows no tuples; the fields of a module are hashable.
    return MODELS[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


def variable_shapes(model: nn.Module, image_shape: tuple[int, int, int], method: str | None = None) -> dict[str, Any]:
    """Shapes and types of the variables that this method of the model uses, without a number computed."""
    images = jnp.zeros((1, *image_shape))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False, method=method))
