"""A network that compiles in a second, for tests of what happens around a network; a test adds it to the table."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from jaxcnn.models import Architecture, Classifier
from jaxcnn.models.architecture import FeatureMap
from jaxcnn.models.dropout import Dropout
from jaxcnn.models.layers import Conv, batch_norm


class Tiny(Classifier):
    """A convolution, BatchNorm, the mean over the image, dropout, a hidden layer."""

    @nn.compact
    def __call__(self, images, *, train):
        x = Conv(4, (5, 5), strides=4, dtype=self.dtype, name="conv")(images)
        x = nn.relu(batch_norm(x, train=train, axis_name=self.axis_name, name="norm", dtype=self.dtype))
        x = Dropout(self.dropout, self.axis_name, self.places)(jnp.mean(x, axis=(1, 2)), train=train)
        # Wide enough for a file of some size.
        x = nn.relu(nn.Dense(2048, name="hidden")(x))
        return nn.Dense(self.classes, name="classifier")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class TinyOptions:
    """It has none."""


TINY = Architecture(
    summary="Train a network for tests.",
    module=Tiny,
    options=TinyOptions,
    build=lambda options, classes, encoder: Tiny(classes=classes),  # noqa: ARG005
    feature_map=FeatureMap(("norm",), first=1.5, stride=4),
)
