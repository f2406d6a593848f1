"""The blocks that the models share.

The functions are called inside a module's `@nn.compact` method and add their layers to that module under the names
given, so that a model's parameter tree is flat and reads like the table of its layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcnn import cpu
from jaxcnn.models.architecture import Images
from jaxcnn.models.dropout import Dropout

# Flax's convolution and PyTorch's max-pool, by methods that are fast on a CPU.
Conv = partial(nn.Conv, conv_general_dilated=cpu.conv_general_dilated)
max_pool = cpu.max_pool

# PyTorch's BatchNorm defaults, in Flax's convention: torch's momentum 0.1 weighs the new value, Flax's 0.9 the old one.
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9

GATES: dict[str, Callable[[Float[Array, "batch channel"]], Float[Array, "batch channel"]]] = {
    "sigmoid": nn.sigmoid,
    "softmax": nn.softmax,
}


def batch_norm(
    x: Float[Array, "batch *space channel"], *, train: bool, axis_name: str | None, name: str, dtype: Any = jnp.float32
) -> Float[Array, "batch *space channel"]:
    """BatchNorm (Ioffe & Szegedy, 2015) with PyTorch's constants; under `axis_name` the statistics are global."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
        axis_name=axis_name,
        dtype=dtype,
        name=name,
    )(x)


@jax.custom_jvp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """ReLU, whose gradient looks at what it gave, so that what it took need not be kept: 0 where it gave 0."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(*primals)
    # Of y > 0 XLA would make x > 0 again.
    return y, jnp.where(y != 0, *tangents, 0)


def conv_norm_relu(
    x: Images,
    features: int,
    kernel_size: int,
    *,
    train: bool,
    names: tuple[str, str],
    strides: int = 1,
    padding: Literal["SAME", "VALID"] = "VALID",
    use_bias: bool = True,
    pool: int = 1,
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
) -> Float[Array, "batch out_height out_width features"]:
    """Square convolution, BatchNorm and ReLU; `names` are those of the convolution and the norm."""
    conv, norm = names
    kernel = (kernel_size, kernel_size)
    x = Conv(features, kernel, strides=strides, padding=padding, use_bias=use_bias, dtype=dtype, name=conv)(x)
    x = batch_norm(x, train=train, axis_name=axis_name, name=norm, dtype=dtype)
    return max_pool(x, pool, relu=True) if pool > 1 else nn.relu(x)


class MeanMaxPool(nn.Module):
    """Global mean and global maximum of every channel, for images of any size (fastai's `AdaptiveConcatPool2d`).

    A module, though it has no parameters, for `jaxcnn.inference.saliency` to find its input by name.
    """

    def __call__(self, x: Images) -> Float[Array, "batch 2*channel"]:
        """Return the means, and behind them the maxima."""
        # Not jnp.max, whose gradient is 0 / 0 where XLA computes x again for it and rounds otherwise: then no pixel is
        # the largest.
        return jnp.concatenate([jnp.mean(x, axis=(1, 2)), nn.max_pool(x, x.shape[1:3])[:, 0, 0]], axis=-1)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al., 2018): channels scaled by a gate computed from their global means.

    Attributes:
        features: width of the bottleneck between the two dense layers.
        gate: ``sigmoid`` as in the paper; ``softmax`` over the channels as in the reference project.
        dropout: rate on the channel means.
        axis_name: mapped axis that the batch is spread over, or None.
        places: of the examples in the global batch; see `Dropout`.
        dtype: of activations.
    """

    features: int
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    dropout: float | Float[Array, ""] = 0.0
    axis_name: str | None = None
    places: Int[Array, " batch"] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        """Return `x` with every channel scaled; needs the `dropout` key when `train` and the rate is above 0."""
        squeezed = jnp.mean(x, axis=(1, 2))
        squeezed = Dropout(self.dropout, self.axis_name, self.places)(squeezed, train=train)
        excited = relu(nn.Dense(self.features, dtype=self.dtype, name="reduce")(squeezed))
        scale = GATES[self.gate](nn.Dense(x.shape[-1], dtype=self.dtype, name="expand")(excited))
        return x * scale[:, None, None, :]


class DoubleConv(nn.Module):
    """A stage of a U-Net (Ronneberger et al., 2015): twice a 3x3 convolution without bias, BatchNorm and ReLU.

    The input is padded with zeros, so that the size stays, as in most U-Nets since; the paper crops.

    Attributes:
        features: width of both convolutions.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of activations.
    """

    features: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Float[Array, "batch height width features"]:
        """Features of the same size; with `train`, BatchNorm uses the batch."""
        block = partial(conv_norm_relu, padding="SAME", use_bias=False, axis_name=self.axis_name, dtype=self.dtype)
        x = block(x, self.features, 3, train=train, names=("conv1", "norm1"))
        return block(x, self.features, 3, train=train, names=("conv2", "norm2"))


class UpConv(nn.Module):
    """Transposed 2x2 convolution with stride 2: twice the height and the width.

    The windows don't overlap, so that each input pixel becomes a square of 2x2 output pixels by a matrix product, and
    the squares are put beside each other (depth-to-space). That is exact, and far faster than XLA's transposed
    convolution on CPU. The parameters are those of
    `nn.ConvTranspose(features, (2, 2), strides=(2, 2), padding="VALID", transpose_kernel=True)`.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch 2*height 2*width features"]:
        """Features of twice the size."""
        batch, height, width, channels = x.shape
        # Each output pixel sees one input pixel: the fan-in is the channels alone, not the window as well.
        initializer = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2, batch_axis=(0, 1))
        kernel = self.param("kernel", initializer, (2, 2, self.features, channels))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        squares = jnp.einsum("bhwc,ijfc->bhiwjf", x, kernel) + bias
        return squares.reshape(batch, 2 * height, 2 * width, self.features)
