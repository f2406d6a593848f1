"""SimpleCNN: a small classifier with squeeze-and-excitation, a skip connection and 1x1 convolutions."""

import dataclasses
from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxcnn.models.architecture import Architecture, Classifier, FeatureMap, Images, Logits, require_width, scaled
from jaxcnn.models.dropout import Dropout
from jaxcnn.models.layers import Conv, SqueezeExcite, conv_norm_relu, max_pool, relu


class SimpleCNN(Classifier):
    """The reference project's network; 7,664,420 parameters at its default widths on 128x128 images.

    Dropout is in the squeeze-and-excitation block and before the hidden layer.

    Attributes:
        stem_features: widths of the two convolutions of the stem.
        squeeze_features: width of the squeeze-and-excitation bottleneck.
        skip_features: width of the block with the skip connection.
        head_features: width of the strided convolution before the flatten.
        hidden_features: width of the dense layer before the logits.
        gate: ``sigmoid``; the reference project's ``softmax`` is kept to reproduce its curves.
    """

    stem_features: tuple[int, int] = (32, 64)
    squeeze_features: int = 32
    skip_features: int = 128
    head_features: int = 256
    hidden_features: int = 1024
    gate: Literal["sigmoid", "softmax"] = "sigmoid"

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Logits:
        """Logits for grey images in [0, 1]; with `train`, BatchNorm uses the batch and a `dropout` key is needed.

        Raises:
            ValueError: the images are smaller than 50x50, so that nothing is left after the last convolution.
        """
        if min(images.shape[1:3]) < 50:
            raise ValueError(f"SimpleCNN needs images of at least 50x50 pixels, got shape {images.shape}")
        conv_block = partial(conv_norm_relu, train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = conv_block(images, self.stem_features[0], 3, names=("conv1", "norm1"), pool=2)
        x = conv_block(x, self.stem_features[1], 5, names=("conv2", "norm2"))
        squeeze_excite = SqueezeExcite(
            self.squeeze_features,
            self.gate,
            self.dropout,
            self.axis_name,
            self.places,
            self.dtype,
            name="squeeze_excite",
        )
        x = squeeze_excite(x, train=train)

        conv = partial(Conv, self.skip_features, dtype=self.dtype)
        residual = relu(conv((5, 5), padding="SAME", name="residual_conv")(x))
        residual = conv((1, 1), name="residual_project")(residual)
        x = max_pool(conv((1, 1), name="shortcut")(x) + residual, 4, relu=True)

        x = conv_block(x, self.head_features, 5, strides=2, names=("conv3", "norm3"))
        x = x.reshape(x.shape[0], -1)
        x = Dropout(self.dropout, self.axis_name, self.places)(x, train=train)
        x = relu(nn.Dense(self.hidden_features, dtype=self.dtype, name="hidden")(x))
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class SimpleCNNOptions:
    """Options of the SimpleCNN."""

    width: float = 1.0
    """Factor on the width of every layer; 1 gives the reference project's 7.7 million parameters."""
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    """Gate of the squeeze-and-excitation block; `softmax` is the reference project's."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: the width leaves nothing.
        """
        require_width(self)


def build_simplecnn(options: SimpleCNNOptions, classes: int, encoder: nn.Module | None = None) -> SimpleCNN:
    """The network that the options describe; it has no encoder."""
    del encoder
    standard = SimpleCNN()
    stem_first, stem_second = standard.stem_features
    return SimpleCNN(
        classes=classes,
        stem_features=(scaled(stem_first, options.width), scaled(stem_second, options.width)),
        squeeze_features=scaled(standard.squeeze_features, options.width),
        skip_features=scaled(standard.skip_features, options.width),
        head_features=scaled(standard.head_features, options.width),
        hidden_features=scaled(standard.hidden_features, options.width),
        gate=options.gate,
    )


SIMPLECNN = Architecture(
    summary="Train a SimpleCNN.",
    module=SimpleCNN,
    options=SimpleCNNOptions,
    build=build_simplecnn,
    # The deepest activations that still resolve an image: 14x14 cells behind the skip connection, after a ReLU. Behind
    # conv3 there would be 5x5, 16 pixels apart and none nearer to the border than 24 pixels. The convolutions of the
    # stem are not padded and the last max-pool drops a rest, so that the cells don't cover the image evenly: conv1
    # begins 1 pixel further in, the max-pools half and three pixels, conv2 four.
    feature_map=FeatureMap(("conv3",), first=8.5, stride=8),
)
