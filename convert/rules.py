"""Define the tables: which entry of a PyTorch state_dict becomes which leaf of the Flax model's tree, and how."""

from convert.mapping import LeftOut, Rule, Table, Transform
from convert.transforms import Flattened, conv_kernel, dense_kernel

# Every table also has the line for BatchNorm's counters (`convert.mapping.COUNTER`).


def norm(key: str, path: str) -> tuple[Rule, ...]:
    """Map a norm: its scale and bias, and a BatchNorm's statistics."""
    return (
        Rule(rf"{key}\.weight", f"params/{path}/scale"),
        Rule(rf"{key}\.bias", f"params/{path}/bias"),
        Rule(rf"{key}\.running_mean", f"batch_stats/{path}/mean"),
        Rule(rf"{key}\.running_var", f"batch_stats/{path}/var"),
    )


def layer(key: str, path: str, transform: Transform) -> tuple[Rule, ...]:
    """Map a convolution or dense layer, with or without a bias."""
    return Rule(rf"{key}\.weight", f"params/{path}/kernel", transform), Rule(rf"{key}\.bias", f"params/{path}/bias")


def _double_conv(key: str, path: str) -> tuple[Rule, ...]:
    return (
        Rule(rf"{key}conv(?P<i>[12])\.weight", rf"params/{path}/conv\g<i>/kernel", conv_kernel),
        *norm(rf"{key}norm(?P<i>[12])", rf"{path}/norm\g<i>"),
    )


def _encoder(key: str, path: str) -> tuple[Rule, ...]:
    return (
        *_double_conv(rf"{key}encoder(?P<n>[1-4])\.enc(?P=n)", rf"{path}encoder\g<n>"),
        *_double_conv(rf"{key}bottleneck\.bottleneck", f"{path}bottleneck"),
    )


UNET: Table = (
    *_encoder("", ""),
    *layer("upconv(?P<n>[1-4])", r"upconv\g<n>", conv_kernel),
    *_double_conv(r"decoder(?P<n>[1-4])\.dec(?P=n)", r"decoder\g<n>"),
    *layer("conv", "conv", conv_kernel),
)


def simplecnn_table(head_features: int, flattened_side: int) -> Table:
    """Of the reference project's SimpleCNN, the last feature map of which has these channels and sides."""
    flattened = Flattened(head_features, flattened_side, flattened_side)
    return (
        *layer(r"conv1\.0", "conv1", conv_kernel),
        *norm(r"conv1\.1", "norm1"),
        *layer(r"conv1\.4", "conv2", conv_kernel),
        *norm(r"conv1\.5", "norm2"),
        *layer(r"SEBlock1\.3", "squeeze_excite/reduce", dense_kernel),
        *layer(r"SEBlock1\.5", "squeeze_excite/expand", dense_kernel),
        *layer("sepconv", "shortcut", conv_kernel),
        *layer(r"module1\.0", "residual_conv", conv_kernel),
        *layer(r"module1\.2", "residual_project", conv_kernel),
        *layer(r"final\.1", "conv3", conv_kernel),
        *norm(r"final\.2", "norm3"),
        *layer(r"final\.6", "hidden", flattened),
        *layer(r"final\.8", "classifier", dense_kernel),
    )


def unet_classifier_table(head: str, head_features: int, flattened_side: int) -> Table:
    """Of the reference project's transfer model, the last feature map of which has these channels and sides."""
    flattened = Flattened(head_features, flattened_side, flattened_side)
    reference = (
        *layer(r"classifier\.0", "conv", conv_kernel),
        *norm(r"classifier\.1", "norm"),
        *layer(r"classifier\.5", "hidden", flattened),
        *layer(r"classifier\.8", "classifier", dense_kernel),
    )
    return (
        *_encoder(r"unet\.", "unet/"),
        LeftOut(r"unet\.(upconv[1-4]|decoder[1-4]|conv)\..+", "the decoder, which the classifier doesn't use"),
        *(layer(r"classifier\.2", "classifier", dense_kernel) if head == "pooled" else reference),
    )


_LAYER, _BLOCK = r"layer(?P<n>[1-4])\.(?P<i>\d+)", r"layer\g<n>/block\g<i>"


def resnet_table(path: str = "", classifier: str = "fc") -> Table:
    """Of torchvision's ResNets, which lie at `path` in the Flax model, with the last layer under the name given."""
    return (
        *layer("conv1", f"{path}conv1", conv_kernel),
        *norm("bn1", f"{path}bn1"),
        *layer(rf"{_LAYER}\.conv(?P<k>[1-3])", rf"{path}{_BLOCK}/conv\g<k>", conv_kernel),
        *norm(rf"{_LAYER}\.bn(?P<k>[1-3])", rf"{path}{_BLOCK}/bn\g<k>"),
        *layer(rf"{_LAYER}\.downsample\.0", f"{path}{_BLOCK}/downsample_conv", conv_kernel),
        *norm(rf"{_LAYER}\.downsample\.1", f"{path}{_BLOCK}/downsample_bn"),
        *layer("fc", classifier, dense_kernel),
    )
