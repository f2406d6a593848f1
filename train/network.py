"""A model as a training step sees it: inputs that nothing is learnt by, and a part that learns."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
from jaxtyping import Array, Float, Key

from jaxcnn import SimpleCNN, UNetClassifier
from jaxcnn.data.augment import Augmentation
from jaxcnn.data.preprocessing import Preprocessing, as_inputs
from jaxcnn.models.unet import STAGE_NAMES

Keys = Key[Array, " batch"]
# (frozen variables, what the batch holds, a key an example or None) -> what the learning part takes.
Inputs = Callable[[Any, Any, Keys | None], Float[Array, "batch ..."]]


@dataclasses.dataclass(frozen=True)
class Network:
    """How a model is trained.

    Attributes:
        model: the module; `apply(variables, images, train=...)` gives logits.
        preprocessing: of the images.
        augmentation: of the images that are trained on.
        inputs: from the frozen variables, a batch's framed images and a key for each, or none while nothing is to be
            random, to the inputs of the part that learns.
        learner: the module's method that is this part; None for the whole module.
        frozen: the first two names in the paths of what does not learn.
    """

    model: nn.Module
    preprocessing: Preprocessing
    augmentation: Augmentation
    inputs: Inputs
    learner: str | None = None
    frozen: tuple[tuple[str, str], ...] = ()


def simplecnn_network(model: SimpleCNN, preprocessing: Preprocessing, augmentation: Augmentation) -> Network:
    """All of a SimpleCNN learns."""

    def inputs(_: Any, images: Array, keys: Keys | None) -> Array:
        return as_inputs(images, preprocessing, augmentation, keys)

    return Network(model, preprocessing, augmentation, inputs)


def unet_network(model: UNetClassifier, preprocessing: Preprocessing, augmentation: Augmentation) -> Network:
    """The stages below the border of a UNetClassifier and its head learn, from the activations at the border."""

    def inputs(frozen: Any, images: Array, keys: Keys | None) -> Array:
        prepared = as_inputs(images, preprocessing, augmentation, keys)
        return cast(Array, model.apply(frozen, prepared, method="encode"))

    names = tuple(("unet", stage) for stage in STAGE_NAMES[: model.frozen_stages])
    return Network(model, preprocessing, augmentation, inputs, "classify", names)


def on_features(network: Network) -> Network:
    """The same network for batches that hold its inputs already."""
    return dataclasses.replace(network, inputs=lambda _, features, keys: features)  # noqa: ARG005
