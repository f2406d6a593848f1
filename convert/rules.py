"""The tables: which entry of a PyTorch state_dict becomes which leaf of the Flax model's tree, and how."""

import math

import numpy as np
from jaxtyping import Shaped

from convert.mapping import LeftOut, Rule, Table, Transform


def conv_kernel(weight: Shaped[np.ndarray, "out in height width"]) -> Shaped[np.ndarray, "height width in out"]:
    """OIHW to HWIO. A transposed convolution's IOHW becomes (height, width, out, in), as `UpConv` has it."""
    return weight.transpose(2, 3, 1, 0)


def dense_kernel(weight: Shaped[np.ndarray, "out in"]) -> Shaped[np.ndarray, "in out"]:
    """PyTorch multiplies by the transpose."""
    return weight.T


def flattened_kernel(channels: int) -> Transform:
    """The kernel of a dense layer behind a flatten of a square map: PyTorch flattens CHW, Flax HWC."""

    def transform(weight: Shaped[np.ndarray, "out chw"]) -> Shaped[np.ndarray, "hwc out"]:
        size = math.isqrt(weight.shape[1] // channels)
        as_maps = weight.reshape(-1, channels, size, size)
        return conv_kernel(as_maps).reshape(-1, len(weight))

    return transform


def _norm(key: str, path: str) -> tuple[Rule | LeftOut, ...]:
    return (
        Rule(rf"{key}\.weight", f"params/{path}/scale"),
        Rule(rf"{key}\.bias", f"params/{path}/bias"),
        Rule(rf"{key}\.running_mean", f"batch_stats/{path}/mean"),
        Rule(rf"{key}\.running_var", f"batch_stats/{path}/var"),
        LeftOut(rf"{key}\.num_batches_tracked", "a counter that only BatchNorm with momentum=None uses"),
    )


def _layer(key: str, path: str, transform: Transform) -> tuple[Rule, Rule]:
    """A convolution or dense layer with a bias."""
    return Rule(rf"{key}\.weight", f"params/{path}/kernel", transform), Rule(rf"{key}\.bias", f"params/{path}/bias")


def _double_conv(key: str, path: str) -> tuple[Rule | LeftOut, ...]:
    return (
        Rule(rf"{key}conv(?P<i>[12])\.weight", rf"params/{path}/conv\g<i>/kernel", conv_kernel),
        *_norm(rf"{key}norm(?P<i>[12])", rf"{path}/norm\g<i>"),
    )


def _encoder(key: str, path: str) -> tuple[Rule | LeftOut, ...]:
    return (
        *_double_conv(rf"{key}encoder(?P<n>[1-4])\.enc(?P=n)", rf"{path}encoder\g<n>"),
        *_double_conv(rf"{key}bottleneck\.bottleneck", f"{path}bottleneck"),
    )


UNET: Table = (
    *_encoder("", ""),
    *_layer("upconv(?P<n>[1-4])", r"upconv\g<n>", conv_kernel),
    *_double_conv(r"decoder(?P<n>[1-4])\.dec(?P=n)", r"decoder\g<n>"),
    *_layer("conv", "conv", conv_kernel),
)


def simplecnn_table(head_features: int) -> Table:
    """Of the reference project's SimpleCNN, the last convolution of which has `head_features` channels."""
    return (
        *_layer(r"conv1\.0", "conv1", conv_kernel),
        *_norm(r"conv1\.1", "norm1"),
        *_layer(r"conv1\.4", "conv2", conv_kernel),
        *_norm(r"conv1\.5", "norm2"),
        *_layer(r"SEBlock1\.3", "squeeze_excite/reduce", dense_kernel),
        *_layer(r"SEBlock1\.5", "squeeze_excite/expand", dense_kernel),
        *_layer("sepconv", "shortcut", conv_kernel),
        *_layer(r"module1\.0", "residual_conv", conv_kernel),
        *_layer(r"module1\.2", "residual_project", conv_kernel),
        *_layer(r"final\.1", "conv3", conv_kernel),
        *_norm(r"final\.2", "norm3"),
        *_layer(r"final\.6", "hidden", flattened_kernel(head_features)),
        *_layer(r"final\.8", "classifier", dense_kernel),
    )


def unet_classifier_table(head_features: int) -> Table:
    """Of the reference project's transfer model, the large convolution of which has `head_features` channels."""
    return (
        *_encoder(r"unet\.", "unet/"),
        LeftOut(r"unet\.(upconv[1-4]|decoder[1-4]|conv)\..+", "the decoder, which the classifier doesn't use"),
        *_layer(r"classifier\.0", "conv", conv_kernel),
        *_norm(r"classifier\.1", "norm"),
        *_layer(r"classifier\.5", "hidden", flattened_kernel(head_features)),
        *_layer(r"classifier\.8", "classifier", dense_kernel),
    )
