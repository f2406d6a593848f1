"""The U-Net of mateuszbuda/brain-segmentation-pytorch, which PyTorch Hub offers for brain MRI."""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.models.architecture import ChannelsError, Features, Images
from jaxcnn.models.layers import Conv, DoubleConv, UpConv, max_pool

# The way down.
STAGE_NAMES = ("encoder1", "encoder2", "encoder3", "encoder4", "bottleneck")
STAGES = len(STAGE_NAMES)


class UNet(nn.Module):
    """The hub's network (Buda et al., 2019); 7,763,041 parameters at its default widths.

    Four stages go down, each of twice the width and half the size of the one before; below them lies the bottleneck;
    four go up, each beside the features of its size from the way down.

    Attributes:
        in_channels: of the images, 0 for any number; the hub's are three MRI sequences: before contrast, FLAIR, after.
        out_channels: masks in an output.
        features: width of the first stage; the bottleneck has 16 times as much.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of activations; logits are float32.
    """

    in_channels: int = 3
    out_channels: int = 1
    features: int = 32
    axis_name: str | None = None
    dtype: Any = jnp.float32

    # Of a mask's pixels, before training.
    first_logit: ClassVar[float] = 0.0

    def setup(self) -> None:
        """The layers, under the hub's names."""
        stage = partial(DoubleConv, axis_name=self.axis_name, dtype=self.dtype)
        up = partial(UpConv, dtype=self.dtype)
        width = self.features
        self.encoder1 = stage(width)
        self.encoder2 = stage(width * 2)
        self.encoder3 = stage(width * 4)
        self.encoder4 = stage(width * 8)
        self.bottleneck = stage(width * 16)
        self.upconv4 = up(width * 8)
        self.decoder4 = stage(width * 8)
        self.upconv3 = up(width * 4)
        self.decoder3 = stage(width * 4)
        self.upconv2 = up(width * 2)
        self.decoder2 = stage(width * 2)
        self.upconv1 = up(width)
        self.decoder1 = stage(width)
        self.conv = Conv(self.out_channels, (1, 1), bias_init=nn.initializers.constant(self.first_logit))

    def __call__(self, images: Images, *, train: bool) -> Float[Array, "batch height width masks"]:
        """Mask logits; the hub's module gives their sigmoid.

        Raises:
            ValueError: see `encode`.
        """
        return self.ascend(*self.encode(images, train), train)

    def ascend(self, x: Features, skips: tuple[Features, ...], train: bool) -> Float[Array, "batch height width masks"]:
        """The way up, from what `encode` gives: mask logits."""
        skip1, skip2, skip3, skip4 = skips
        for upconv, skip, decoder in (
            (self.upconv4, skip4, self.decoder4),
            (self.upconv3, skip3, self.decoder3),
            (self.upconv2, skip2, self.decoder2),
            (self.upconv1, skip1, self.decoder1),
        ):
            x = decoder(jnp.concatenate([upconv(x), skip], axis=-1), train=train)
        return self.conv(x.astype(jnp.float32))

    def encode(self, images: Images, train: bool) -> tuple[Features, tuple[Features, ...]]:
        """The way down: `model.apply(variables, images, train, method="encode")`.

        Args:
            images: height and width are multiples of 16.
            train: BatchNorm uses the batch.

        Returns:
            The bottleneck, (batch, height / 16, width / 16, 16 features), and the outputs of encoder 1 to 4, the first
            (batch, height, width, features), each next one half as large and twice as wide.

        Raises:
            ValueError: the size of the images is no multiple of 16.
            ChannelsError: their channels are not `in_channels`.
        """
        return self._go_down(images, train, 0, STAGES)

    def descend(self, x: Features, train: bool, *, start: int = 0, stop: int = STAGES) -> Features:
        """A part of the way down: stages `start` to `stop - 1`, and after each of encoder 1 to 4 its max-pool.

        So `descend(descend(images, train, stop=k), train, start=k)` is the bottleneck of `encode(images, train)`.
        """
        return self._go_down(x, train, start, stop)[0]

    def _go_down(self, x: Features, train: bool, start: int, stop: int) -> tuple[Features, tuple[Features, ...]]:
        """What `descend` gives, and what each of encoder 1 to 4 on this way gave before its max-pool."""
        if start == 0:
            shape = x.shape
            if self.in_channels not in (0, shape[-1]):
                raise ChannelsError(f"this U-Net needs images of {self.in_channels} channels, got shape {shape}")
            if shape[1] % 16 or shape[2] % 16 or min(shape[1:3]) < 16:
                raise ValueError(f"U-Net needs images whose height and width are multiples of 16, got shape {shape}")
        skips = []
        for name in STAGE_NAMES[start:stop]:
            x = getattr(self, name)(x, train=train)
            if name != "bottleneck":
                skips.append(x)
                x = max_pool(x, 2)
        return x, tuple(skips)
