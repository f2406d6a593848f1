"""Transfer: a classifier on the bottleneck of a U-Net that has learnt to segment."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.models.architecture import (
    Architecture,
    Classifier,
    EncoderOptions,
    FeatureMap,
    Features,
    Images,
    Logits,
    check_encoder_width,
    scaled,
    stages_before,
)
from jaxcnn.models.dropout import Dropout
from jaxcnn.models.layers import Conv, MeanMaxPool, batch_norm
from jaxcnn.models.unet import STAGE_NAMES, STAGES, UNet

HeadName = Literal["reference", "pooled"]


class UNetClassifier(Classifier):
    """The reference project's transfer model: the encoder and bottleneck of a U-Net, and a head of one large kernel.

    That head has 8,422,788 parameters on 128x128 images; with the bottleneck, 11,963,780 are trained. The `pooled` head
    has 4,100 for images of any size: it is linear in the mean and the maximum of each channel, so that it can't learn
    where in an image something lies. The parameters below `unet` are those of a `UNet` without its decoder.

    The first stages are frozen: whatever `train` says, BatchNorm uses its running statistics there, and no gradient
    goes into them. So their outputs at the border, `encode(images)`, can be computed once, and training can run on
    those: `classify(encode(images), train=train)` is the whole model.

    Dropout is before each dense layer. The activations at the border are float32, whatever the dtype.

    Attributes:
        features: width of the U-Net's first stage.
        head: ``reference``: an 8x8 convolution and two dense layers; ``pooled``: a dense layer behind global pooling.
        head_features: width of the reference head's convolution.
        hidden_features: width of its first dense layer.
        in_channels: of the U-Net; a grey image is repeated so often.
        frozen_stages: so many of encoder 1 to 4 and the bottleneck are frozen, from the first on.
    """

    features: int = 32
    head: HeadName = "reference"
    head_features: int = 256
    hidden_features: int = 128
    frozen_stages: int = 4
    in_channels: int = 3

    def setup(self) -> None:
        """The U-Net, of which only the way down is used."""
        if not 0 <= self.frozen_stages <= STAGES:
            raise ValueError(f"frozen_stages {self.frozen_stages}: must be 0 to {STAGES}")
        self.unet = UNet(self.in_channels, features=self.features, axis_name=self.axis_name, dtype=self.dtype)

    def __call__(self, images: Images, *, train: bool) -> Logits:
        """Logits for images of `in_channels` channels, or grey ones; with `train`, a `dropout` key is needed.

        Raises:
            ChannelsError: they have other channels.
            ValueError: the images are smaller than 128x128, so that the reference head's kernel doesn't fit, or their
                height or width is no multiple of 16.
        """
        return self.classify(self.encode(images), train=train)

    def encode(self, images: Images) -> Features:
        """The activations at the border, what the frozen stages make of the images; grey ones are repeated.

        With four frozen stages and 128x128 images they are (batch, 8, 8, 8 * features).

        Raises:
            ValueError: see `__call__`.
        """
        if self.head == "reference" and min(images.shape[1:3]) < 128:
            raise ValueError(f"UNetClassifier needs images of at least 128x128 pixels, got shape {images.shape}")
        if images.shape[-1] == 1:
            images = jnp.repeat(images, self.in_channels, axis=-1)
        border = self.unet.descend(images, False, stop=self.frozen_stages)
        return jax.lax.stop_gradient(border).astype(jnp.float32)

    @nn.compact
    def classify(self, features: Features, *, train: bool) -> Logits:
        """Logits from the activations at the border: the stages that are not frozen, and the head."""
        x = self.unet.descend(features, train, start=self.frozen_stages)
        if self.head == "pooled":
            x = MeanMaxPool(name="pool")(x)
        else:
            x = Conv(self.head_features, (8, 8), padding="VALID", dtype=self.dtype, name="conv")(x)
            x = batch_norm(x, train=train, axis_name=self.axis_name, name="norm", dtype=self.dtype)
            x = nn.selu(x.reshape(x.shape[0], -1))
            x = Dropout(self.dropout, self.axis_name, self.places)(x, train=train)
            x = nn.selu(nn.Dense(self.hidden_features, dtype=self.dtype, name="hidden")(x))
        x = Dropout(self.dropout, self.axis_name, self.places)(x, train=train)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class UNetOptions(EncoderOptions):
    """Options of the classifier on a U-Net's bottleneck."""

    train_from: Literal["encoder1", "encoder2", "encoder3", "encoder4", "bottleneck", "head"] = "bottleneck"
    """The first stage that learns; all stages before it are frozen."""
    unet_learning_rate: float = 1e-4
    """Learning rate of the stages of the U-Net that learn; --learning-rate is that of the head."""
    head: HeadName = "reference"
    """`reference` looks at all places; `pooled` at each channel's mean and maximum, for images of any size."""
    # `pooled` has a two thousandth of the parameters, and takes images of any size that the U-Net takes.


def build_unet_classifier(options: UNetOptions, classes: int, encoder: nn.Module | None = None) -> UNetClassifier:
    """The network that the options describe, as wide as the encoder if there is one.

    Raises:
        ValueError: the encoder is no U-Net, or has another width than the options ask for.
    """
    standard = UNetClassifier()
    features, in_channels = scaled(standard.features, options.width), standard.in_channels
    if encoder is not None:
        if not isinstance(encoder, UNet):
            raise ValueError(f"is a {type(encoder).__name__}, not a UNet; give converted weights, or a run to segment")
        if options.head == "pooled":
            check_encoder_width(options, standard.features, encoder.features)
        features, in_channels = encoder.features, encoder.in_channels
    return UNetClassifier(
        classes=classes,
        features=features,
        head=options.head,
        head_features=scaled(standard.head_features, options.width),
        hidden_features=scaled(standard.hidden_features, options.width),
        frozen_stages=len(stages_before(options.train_from, STAGE_NAMES)),
        in_channels=in_channels,
    )


UNET_CLASSIFIER = Architecture(
    summary="Train a classifier on the bottleneck of a U-Net that has learnt to segment.",
    module=UNetClassifier,
    options=UNetOptions,
    build=build_unet_classifier,
    # The 8x8 cells of the bottleneck, after a ReLU, each in the middle of its 16x16 pixels.
    feature_map=FeatureMap(("conv", "pool"), first=7.5, stride=16),
    # The weights work best with the normalisation that they were trained with.
    defaults={"normalization": "per-image-z-score"},
    frozen=lambda options: tuple(("unet", stage) for stage in stages_before(options.train_from, STAGE_NAMES)),
    learning_rates={"unet": "unet_learning_rate"},
    encoder="unet",
)
