"""The U-Net of mateuszbuda/brain-segmentation-pytorch, which PyTorch hub offers for brain MRI."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.layers import Conv, DoubleConv, UpConv, max_pool

# Encoder 1 to 4 and the bottleneck.
STAGES = 5


class UNet(nn.Module):
    """The hub's network (Buda et al., 2019); 7,763,041 parameters at its default widths.

    Four stages go down, each of twice the width and half the size of the one before; below them lies the bottleneck;
    four go up, each beside the features of its size from the way down.

    Attributes:
        in_channels: of the images; the hub's are three MRI sequences: before contrast, FLAIR, after contrast.
        out_channels: masks in an output.
        features: width of the first stage; the bottleneck has 16 times as much.
        axis_name: mapped axis over which batch statistics are averaged, or None.
    """

    in_channels: int = 3
    out_channels: int = 1
    features: int = 32
    axis_name: str | None = None

    def setup(self) -> None:
        """The layers, under the hub's names."""
        stage = partial(DoubleConv, axis_name=self.axis_name)
        width = self.features
        self.encoder1 = stage(width)
        self.encoder2 = stage(width * 2)
        self.encoder3 = stage(width * 4)
        self.encoder4 = stage(width * 8)
        self.bottleneck = stage(width * 16)
        self.upconv4 = UpConv(width * 8)
        self.decoder4 = stage(width * 8)
        self.upconv3 = UpConv(width * 4)
        self.decoder3 = stage(width * 4)
        self.upconv2 = UpConv(width * 2)
        self.decoder2 = stage(width * 2)
        self.upconv1 = UpConv(width)
        self.decoder1 = stage(width)
        self.conv = Conv(self.out_channels, (1, 1))

    def __call__(
        self, images: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch height width masks"]:
        """Mask logits; the hub's module gives their sigmoid.

        Raises:
            ValueError: see `encode`.
        """
        x, (skip1, skip2, skip3, skip4) = self.encode(images, train)
        for upconv, skip, decoder in (
            (self.upconv4, skip4, self.decoder4),
            (self.upconv3, skip3, self.decoder3),
            (self.upconv2, skip2, self.decoder2),
            (self.upconv1, skip1, self.decoder1),
        ):
            x = decoder(jnp.concatenate([upconv(x), skip], axis=-1), train=train)
        return self.conv(x)

    def encode(
        self, images: Float[Array, "batch height width channel"], train: bool, *, frozen_stages: int = 0
    ) -> tuple[Float[Array, "batch _ _ _"], tuple[Float[Array, "batch _ _ _"], ...]]:
        """The way down: `model.apply(variables, images, train, method="encode")`.

        Args:
            images: height and width are multiples of 16.
            train: BatchNorm uses the batch.
            frozen_stages: so many of encoder 1 to 4 and the bottleneck, from the first on, are fixed features: whatever
                `train` says, BatchNorm uses its running statistics there, and no gradient goes into them.

        Returns:
            The bottleneck, (batch, height / 16, width / 16, 16 features), and the outputs of encoder 1 to 4, the first
            (batch, height, width, features), each next one half as large and twice as wide.

        Raises:
            ValueError: the size of the images is no multiple of 16, their channels are not `in_channels`, or there
                aren't that many stages.
        """
        _check_images(images.shape, self.in_channels)
        if not 0 <= frozen_stages <= STAGES:
            raise ValueError(f"frozen_stages {frozen_stages}: must be 0 to {STAGES}")
        x = images
        skips = []
        for index, stage in enumerate((self.encoder1, self.encoder2, self.encoder3, self.encoder4)):
            x = _run(stage, x, train, frozen=index < frozen_stages)
            skips.append(x)
            x = max_pool(x, 2)
        return _run(self.bottleneck, x, train, frozen=frozen_stages == STAGES), tuple(skips)


def _run(
    stage: DoubleConv, x: Float[Array, "batch height width channel"], train: bool, *, frozen: bool
) -> Float[Array, "batch height width features"]:
    x = stage(x, train=train and not frozen)
    return jax.lax.stop_gradient(x) if frozen else x


def _check_images(shape: tuple[int, ...], channels: int) -> None:
    if shape[-1] != channels:
        raise ValueError(f"this U-Net needs images of {channels} channels, got shape {shape}")
    if shape[1] % 16 or shape[2] % 16 or min(shape[1:3]) < 16:
        raise ValueError(f"U-Net needs images whose height and width are multiples of 16, got shape {shape}")
