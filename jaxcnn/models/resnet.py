"""ResNets (He et al., 2016) as torchvision has them, and a classifier of grey images on one that has learnt others."""

import dataclasses
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.models.architecture import (
    Architecture,
    Classifier,
    EncoderOptions,
    FeatureMap,
    Features,
    Images,
    Logits,
    Paths,
    check_encoder_width,
    scaled,
    stages_before,
)
from jaxcnn.models.dropout import Dropout
from jaxcnn.models.layers import Conv, batch_norm

# Blocks in layer1 to layer4, and their kind.
BlockName = Literal["basic", "bottleneck"]
DEPTHS: dict[str, tuple[BlockName, tuple[int, int, int, int]]] = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
# What may be frozen, from the first on.
STAGE_NAMES = ("stem", "layer1", "layer2", "layer3", "layer4")


class ResidualBlock(nn.Module):
    """A shortcut around two or three convolutions.

    Attributes:
        kind: ``basic``: twice 3x3; ``bottleneck``: 1x1, 3x3 and 1x1, the last of four times the width. The 3x3 one has
            the stride, as in torchvision ("ResNet v1.5"); the paper gives it to the first.
        features: width inside.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of activations.
    """

    kind: BlockName
    features: int
    strides: int = 1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Float[Array, "batch out_height out_width features"]:
        """The block's output; with `train`, BatchNorm uses the batch."""

        def conv_norm(x: Array, features: int, size: int, strides: int, names: tuple[str, str]) -> Array:
            # "SAME" would pad an even image with stride 2 on one side alone; PyTorch pads both.
            conv = Conv(features, (size, size), strides, size // 2, use_bias=False, dtype=self.dtype, name=names[0])
            return batch_norm(conv(x), train=train, axis_name=self.axis_name, name=names[1], dtype=self.dtype)

        width = self.features
        convs = [(width, 3, self.strides), (width, 3, 1)]
        if self.kind == "bottleneck":
            convs = [(width, 1, 1), (width, 3, self.strides), (4 * width, 1, 1)]
        residual = x
        for number, (features, size, strides) in enumerate(convs, start=1):
            residual = conv_norm(residual, features, size, strides, (f"conv{number}", f"bn{number}"))
            residual = nn.relu(residual) if number < len(convs) else residual
        if x.shape != residual.shape:
            x = conv_norm(x, residual.shape[-1], 1, self.strides, ("downsample_conv", "downsample_bn"))
        return nn.relu(x + residual)


class Stage(nn.Module):
    """So many blocks alike, but for the strides: those are the first one's, which may halve the size.

    The other attributes are those of a `ResidualBlock`.
    """

    kind: BlockName
    blocks: int
    features: int
    strides: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Float[Array, "batch out_height out_width features"]:
        """The last block's output."""
        for place in range(self.blocks):
            strides = self.strides if place == 0 else 1
            block = ResidualBlock(self.kind, self.features, strides, self.axis_name, self.dtype, name=f"block{place}")
            x = block(x, train=train)
        return x


class MeanPool(nn.Module):
    """Global mean of every channel; a module for `jaxcnn.inference.saliency` to find its input by name."""

    def __call__(self, x: Images) -> Float[Array, "batch channel"]:
        """The means."""
        return jnp.mean(x, axis=(1, 2))


class ResNet(nn.Module):
    """A ResNet in torchvision's layout; 11,689,512 parameters as ResNet-18 with 1000 classes.

    Attributes:
        classes: number of logits; ImageNet has 1000.
        block: kind of the blocks.
        blocks: their number in layer1 to layer4.
        features: width of layer1; each next layer is twice as wide.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of activations; parameters, batch statistics and logits are float32.
    """

    classes: int = 1000
    block: BlockName = "basic"
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    features: int = 64
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """The layers, under torchvision's names."""
        self.conv1 = Conv(self.features, (7, 7), 2, 3, use_bias=False, dtype=self.dtype)
        self.bn1 = nn.BatchNorm(momentum=0.9, epsilon=1e-5, axis_name=self.axis_name, dtype=self.dtype)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            Stage(self.block, count, self.features * 2**place, min(place, 1) + 1, self.axis_name, self.dtype)
            for place, count in enumerate(self.blocks)
        )
        self.pool = MeanPool()
        self.fc = nn.Dense(self.classes, dtype=self.dtype)

    def __call__(self, images: Images, *, train: bool) -> Logits:
        """Logits for images of three channels; grey ones are repeated."""
        return self.fc(self.pool(self.encode(images, train))).astype(jnp.float32)

    def encode(self, images: Images, train: bool) -> Float[Array, "batch _ _ features"]:
        """The last feature map, of a 32nd of the height and width: all but the last layer."""
        return self.descend(images, train)

    def descend(self, x: Features, train: bool, *, start: int = 0, stop: int = len(STAGE_NAMES)) -> Features:
        """A part of the way from images to the last feature map: stages `start` to `stop - 1` of `STAGE_NAMES`."""
        for name in STAGE_NAMES[start:stop]:
            x = self._stem(x, train) if name == "stem" else getattr(self, name)(x, train=train)
        return x

    def _stem(self, images: Array, train: bool) -> Array:
        if images.shape[-1] == 1:
            images = jnp.repeat(images, 3, axis=-1)
        x = nn.relu(self.bn1(self.conv1(images), use_running_average=not train))
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


class ResNetClassifier(Classifier):
    """Transfer: a classifier on a ResNet that has learnt to tell other images apart. Below `resnet` is a `ResNet`.

    The first stages are frozen: whatever `train` says, BatchNorm uses its running statistics there, and no gradient
    goes into them. So `encode(images)` can be computed once, and `classify(encode(images), train=train)` is the whole.

    Dropout is before the last layer. The activations at the border are float32, whatever the dtype. What is not named
    below is an attribute of a `ResNet` or of a `Classifier`.

    Attributes:
        frozen_stages: so many of `STAGE_NAMES` are frozen, from the first on.
    """

    block: BlockName = "basic"
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    features: int = 64
    frozen_stages: int = 4

    def setup(self) -> None:
        """The ResNet, but for its last layer."""
        if not 0 <= self.frozen_stages <= len(STAGE_NAMES):
            raise ValueError(f"frozen_stages {self.frozen_stages}: must be 0 to {len(STAGE_NAMES)}")
        self.resnet = ResNet(
            block=self.block, blocks=self.blocks, features=self.features, axis_name=self.axis_name, dtype=self.dtype
        )

    def __call__(self, images: Images, *, train: bool) -> Logits:
        """Logits for images of three channels, or grey ones; with `train`, a `dropout` key is needed."""
        return self.classify(self.encode(images), train=train)

    def encode(self, images: Images) -> Features:
        """What the frozen stages make of the images: their activations at the border."""
        border = self.resnet.descend(images, False, stop=self.frozen_stages)
        return jax.lax.stop_gradient(border).astype(jnp.float32)

    @nn.compact
    def classify(self, features: Features, *, train: bool) -> Logits:
        """Logits from the activations at the border: the stages that are not frozen, and the last layer."""
        x = self.resnet.descend(features, train, start=self.frozen_stages)
        x = MeanPool(name="pool")(x)
        x = Dropout(self.dropout, self.axis_name, self.places)(x, train=train)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class ResNetOptions(EncoderOptions):
    """Options of a classifier on a ResNet."""

    train_from: Literal["stem", "layer1", "layer2", "layer3", "layer4", "head"] = "layer4"
    """The first stage that learns; all stages before it are frozen."""
    resnet_learning_rate: float = 1e-4
    """Learning rate of the stages of the ResNet that learn; --learning-rate is that of the last layer."""


def build_resnet_classifier(
    name: str, options: ResNetOptions, classes: int, encoder: nn.Module | None = None
) -> ResNetClassifier:
    """The network that the options describe, as wide as the encoder if there is one.

    Raises:
        ValueError: the encoder is not the ResNet of this name, or has another width than the options ask for.
    """
    block, blocks = DEPTHS[name]
    features = scaled(ResNet.features, options.width)
    if encoder is not None:
        if not isinstance(encoder, ResNet) or (encoder.block, encoder.blocks) != (block, blocks):
            raise ValueError(f"is no {name}; python -m convert {name} writes one")
        check_encoder_width(options, ResNet.features, encoder.features)
        features = encoder.features
    frozen = len(stages_before(options.train_from, STAGE_NAMES))
    return ResNetClassifier(classes=classes, block=block, blocks=blocks, features=features, frozen_stages=frozen)


def frozen_layers(options: ResNetOptions) -> Paths:
    """The layers of the stages before the first one that learns."""
    layers_of = {"stem": ("conv1", "bn1")}
    stages = stages_before(options.train_from, STAGE_NAMES)
    return tuple(("resnet", layer) for stage in stages for layer in layers_of.get(stage, (stage,)))


RESNETS = {
    name: Architecture(
        summary=f"Train a classifier on a ResNet-{name.removeprefix('resnet')} that has learnt from ImageNet.",
        module=ResNetClassifier,
        options=ResNetOptions,
        build=partial(build_resnet_classifier, name),
        # The cells of layer4, after a ReLU. All windows have an odd size and are padded to be centred on a pixel.
        feature_map=FeatureMap(("pool",), first=0, stride=32),
        defaults={"normalization": "imagenet"},
        frozen=frozen_layers,
        learning_rates={"resnet": "resnet_learning_rate"},
        encoder="resnet",
    )
    for name in DEPTHS
}
