"""SimpleCNN: a small classifier with squeeze-and-excitation, a skip connection and 1x1 convolutions."""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcnn.models.dropout import Dropout
from jaxcnn.models.layers import Conv, SqueezeExcite, conv_norm_relu, max_pool


class SimpleCNN(nn.Module):
    """The reference project's network; 7,664,420 parameters at its default widths on 128x128 images.

    Attributes:
        classes: number of logits.
        stem_features: widths of the two convolutions of the stem.
        squeeze_features: width of the squeeze-and-excitation bottleneck.
        skip_features: width of the block with the skip connection.
        head_features: width of the strided convolution before the flatten.
        hidden_features: width of the dense layer before the logits.
        dropout: rate in the squeeze-and-excitation block and before the hidden layer.
        gate: ``sigmoid``; the reference project's ``softmax`` is kept to reproduce its curves.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        places: of the examples in the global batch, which dropout's masks belong to; see `Dropout`.
        dtype: of activations; parameters, batch statistics and logits are float32.
    """

    classes: int = 4
    stem_features: tuple[int, int] = (32, 64)
    squeeze_features: int = 32
    skip_features: int = 128
    head_features: int = 256
    hidden_features: int = 1024
    dropout: float | Float[Array, ""] = 0.1
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    axis_name: str | None = None
    places: Int[Array, " batch"] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch classes"]:
        """Logits for grey images in [0, 1]; with `train`, BatchNorm uses the batch and a `dropout` key is needed.

        Raises:
            ValueError: the images are smaller than 50x50, so that nothing is left after the last convolution.
        """
        if min(images.shape[1:3]) < 50:
            raise ValueError(f"SimpleCNN needs images of at least 50x50 pixels, got shape {images.shape}")
        conv_block = partial(conv_norm_relu, train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = conv_block(images, self.stem_features[0], 3, names=("conv1", "norm1"))
        x = max_pool(x, 2)
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
        residual = nn.relu(conv((5, 5), padding="SAME", name="residual_conv")(x))
        residual = conv((1, 1), name="residual_project")(residual)
        x = nn.relu(conv((1, 1), name="shortcut")(x) + residual)
        x = max_pool(x, 4)

        x = conv_block(x, self.head_features, 5, strides=2, names=("conv3", "norm3"))
        x = x.reshape(x.shape[0], -1)
        x = Dropout(self.dropout, self.axis_name, self.places)(x, train=train)
        x = nn.relu(nn.Dense(self.hidden_features, dtype=self.dtype, name="hidden")(x))
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)
