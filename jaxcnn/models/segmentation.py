"""Segmentation: the U-Net itself, trained to give each pixel its class."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcnn.models.architecture import Architecture, Images, require_width, scaled
from jaxcnn.models.dropout import Dropout
from jaxcnn.models.unet import UNet


class SegmentationUNet(UNet):
    """A U-Net for masks of one or more classes beside the background, whose parameters are those of a `UNet`.

    The background has the logit 0. So with one other class the softmax of the logits is the sigmoid of that class's,
    as in the hub's network, and a pixel belongs to it where its probability is above a half.

    Attributes:
        classes: with the background; there is a mask for each other one.
        dropout: rate of the bottleneck's activations, in [0, 1); it may be traced.
        places: of the examples in the global batch, which dropout's masks belong to; see `Dropout`.
    """

    in_channels: int = 0
    classes: int = 2
    dropout: float | Float[Array, ""] = 0.0
    places: Int[Array, " batch"] | None = None

    # A probability of 0.02, about the share that tumours cover (Lin et al., "Focal loss", 2017, section 4.1): from a
    # half, hundreds of steps would go into calling the background background.
    first_logit: ClassVar[float] = -4.0

    def setup(self) -> None:
        """The layers of a `UNet`, and dropout."""
        super().setup()
        self.drop = Dropout(self.dropout, self.axis_name, self.places)

    def __call__(self, images: Images, *, train: bool) -> Float[Array, "batch height width classes"]:
        """Logits of each pixel's class.

        Raises:
            ValueError: the height or the width of the images is no multiple of 16.
        """
        bottleneck, skips = self.encode(images, train)
        logits = self.ascend(self.drop(bottleneck, train=train), skips, train)
        return jnp.concatenate([jnp.zeros_like(logits[..., :1]), logits], axis=-1)


@dataclasses.dataclass(frozen=True)
class SegmentationOptions:
    """Options of the U-Net that segments."""

    width: float = 0.5
    """Factor on the width of every layer; at 1 it is as wide as the hub's network, with 7.8 million parameters."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: the width leaves nothing.
        """
        require_width(self)


def build_segmentation(options: SegmentationOptions, classes: int, encoder: nn.Module | None = None) -> nn.Module:
    """The network that the options describe."""
    del encoder  # It has none that is converted.
    return SegmentationUNet(classes=classes, out_channels=classes - 1, features=scaled(UNet.features, options.width))


SEGMENTATION = Architecture(
    summary="Train a U-Net to segment: images with masks.",
    module=SegmentationUNet,
    options=SegmentationOptions,
    build=build_segmentation,
    defaults={"normalization": "per-image-z-score", "loss": "dice-cross-entropy", "dropout": 0.0},
    task="segmentation",
)
