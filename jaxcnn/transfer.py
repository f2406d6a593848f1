"""Transfer: a classifier on the bottleneck of a U-Net that has learnt to segment."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.layers import Conv, batch_norm
from jaxcnn.unet import UNet


class UNetClassifier(nn.Module):
    """The reference project's transfer model: the encoder and bottleneck of a U-Net, and a head of one large kernel.

    The head has 8,422,788 parameters on 128x128 images; with the bottleneck, 11,963,780 are trained. The parameters
    below `unet` are those of a `UNet` without its decoder.

    Attributes:
        classes: number of logits.
        features: width of the U-Net's first stage.
        head_features: width of the head's 8x8 convolution.
        hidden_features: width of the dense layer before the logits.
        dropout: rate before both dense layers.
        frozen_stages: so many of encoder 1 to 4 and the bottleneck stay as they are; see `UNet.encode`.
        axis_name: mapped axis over which batch statistics are averaged, or None.
    """

    classes: int = 4
    features: int = 32
    head_features: int = 256
    hidden_features: int = 128
    dropout: float = 0.1
    frozen_stages: int = 4
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 1"], *, train: bool) -> Float[Array, "batch classes"]:
        """Logits for grey images, normalised as the U-Net expects; with `train`, a `dropout` key is needed.

        Raises:
            ValueError: the images are smaller than 128x128, so that the 8x8 kernel doesn't fit, or their height or
                width is no multiple of 16.
        """
        if min(images.shape[1:3]) < 128:
            raise ValueError(f"UNetClassifier needs images of at least 128x128 pixels, got shape {images.shape}")
        unet = UNet(features=self.features, axis_name=self.axis_name, name="unet")
        x, _ = unet.encode(jnp.repeat(images, unet.in_channels, axis=-1), train, frozen_stages=self.frozen_stages)
        x = Conv(self.head_features, (8, 8), padding="VALID", name="conv")(x)
        x = batch_norm(x, train=train, axis_name=self.axis_name, name="norm")
        x = nn.selu(x.reshape(x.shape[0], -1))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.selu(nn.Dense(self.hidden_features, name="hidden")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="classifier")(x)
