"""The network that a configuration names, and the weights that it starts from."""

import functools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.cpu import xla_only
from jaxcnn.errors import UserError
from jaxcnn.inference.pretrained import Pretrained, load_unet
from jaxcnn.models.table import variable_shapes
from jaxcnn.models.unet import STAGE_NAMES
from train.config import AUGMENTATIONS, SimpleCNNConfig, TrainConfig, UNetConfig
from train.deferred import Deferred
from train.framing import preprocessing_of
from train.network import Network, simplecnn_network, unet_network
from train.state import initial_variables

RANDOM = "random"

_HOW_TO_GET_AN_ENCODER = (
    "--encoder: name the folder of a converted U-Net, which `python -m convert unet --hub weights` (with a connection)"
    " or `python -m convert unet CHECKPOINT.pt weights` writes, or `random` for untrained weights"
)


def build_network(
    config: TrainConfig, classes: int, image_shape: tuple[int, int, int]
) -> tuple[Network, Deferred[dict[str, Any]]]:
    """The network, and its variables before the first step.

    Raises:
        UserError: the encoder's folder is missing, damaged or of another model.
    """
    preprocessing = preprocessing_of(config)
    seen = preprocessing.framed_shape(image_shape)
    augmentation = AUGMENTATIONS[config.augment]
    if isinstance(config, SimpleCNNConfig):
        network = simplecnn_network(_simplecnn(config, classes), preprocessing, augmentation)
        return network, initial_variables(network, seen, config.seed)
    assert isinstance(config, UNetConfig)
    encoder = _load_encoder(config.encoder)
    network = unet_network(_unet_classifier(config, classes, encoder), preprocessing, augmentation)
    variables = initial_variables(network, seen, config.seed)
    return network, variables if encoder is None else variables.then(partial(_with_encoder, unet=encoder.variables))


def _simplecnn(config: SimpleCNNConfig, classes: int) -> SimpleCNN:
    standard = SimpleCNN()
    stem_first, stem_second = standard.stem_features
    return SimpleCNN(
        classes=classes,
        stem_features=(_scaled(stem_first, config.width), _scaled(stem_second, config.width)),
        squeeze_features=_scaled(standard.squeeze_features, config.width),
        skip_features=_scaled(standard.skip_features, config.width),
        head_features=_scaled(standard.head_features, config.width),
        hidden_features=_scaled(standard.hidden_features, config.width),
        dropout=config.dropout,
        gate=config.gate,
        dtype=jnp.dtype(config.dtype),
    )


def _unet_classifier(config: UNetConfig, classes: int, encoder: Pretrained | None) -> UNetClassifier:
    standard = UNetClassifier()
    features = _scaled(standard.features, config.width) if encoder is None else encoder.manifest.fields["features"]
    frozen = (*STAGE_NAMES, "head").index(config.train_from)
    return UNetClassifier(
        classes=classes,
        features=features,
        head=config.head,
        head_features=_scaled(standard.head_features, config.width),
        hidden_features=_scaled(standard.hidden_features, config.width),
        dropout=config.dropout,
        frozen_stages=frozen,
        dtype=jnp.dtype(config.dtype),
    )


def _scaled(features: int, width: float) -> int:
    return max(1, round(width * features))


def check_encoder(config: TrainConfig) -> None:
    """See that a U-Net's classifier has an encoder named, before anything is written.

    Raises:
        UserError: it has none, or the folder holds none.
    """
    if isinstance(config, UNetConfig):
        _load_encoder(config.encoder)


def check_image_size(config: TrainConfig, image_shape: tuple[int, int, int]) -> None:
    """See that the network takes images of the size that it will see, before anything is written.

    Raises:
        UserError: it doesn't.
    """
    shape = preprocessing_of(config).framed_shape(image_shape)
    # The widths don't matter; with standard ones the models of a sweep are alike.
    model = UNetClassifier(head=config.head) if isinstance(config, UNetConfig) else SimpleCNN()
    if refusal := _refusal(model, shape):
        raise UserError(f"--image-size {shape[0]}: {refusal}; choose another size")


@functools.cache
def _refusal(model: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """Why the network doesn't take such images: it is traced, which computes nothing. Empty if it does."""
    try:
        with xla_only():
            variable_shapes(model, image_shape)
    except ValueError as error:
        return str(error)
    return ""


def _load_encoder(encoder: str | None) -> Pretrained | None:
    if encoder is None:
        raise UserError(_HOW_TO_GET_AN_ENCODER)
    if encoder == RANDOM:
        return None
    unet = load_unet(Path(encoder), encoder_only=True)
    if (channels := unet.manifest.fields["in_channels"]) != UNet.in_channels:
        raise UserError(f"--encoder {encoder}: takes images of {channels} channels; give one of {UNet.in_channels}")
    return unet


def _with_encoder(variables: Mapping[str, Any], *, unet: Mapping[str, Any]) -> dict[str, Any]:
    """The variables with those below `unet` taken from a U-Net."""
    below = {(collection, "unet", *path): leaf for (collection, *path), leaf in flatten_dict(unet).items()}
    return unflatten_dict(flatten_dict(variables) | below)
