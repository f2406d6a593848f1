"""What the table of models says about a network: how it is built, what of it is frozen, how fast its parts learn."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Images = Float[Array, "batch height width channel"]
"""Images, or the feature maps of a layer."""
Features = Float[Array, "batch _ _ _"]
"""Feature maps somewhere between the images and the logits, of any size."""
Logits = Float[Array, "batch classes"]

Paths = tuple[tuple[str, ...], ...]
"""Of submodules: the names that lead to each."""

TaskName = Literal["classification", "segmentation"]

RANDOM = "random"


class ChannelsError(ValueError):
    """Images have another number of channels than a network takes."""


class Classifier(nn.Module):
    """The fields that training sets on every network.

    A network has `__call__(images, *, train) -> logits`. If a part of it can be frozen, that is the same as
    `classify(encode(images), train=train)`, where `encode` is the frozen part.

    Attributes:
        classes: number of logits.
        dropout: rate, in [0, 1); it may be traced, so that one program trains models of several rates.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        places: of the examples in the global batch, which dropout's masks belong to; see `Dropout`.
        dtype: of activations; parameters, batch statistics and logits are float32.
    """

    classes: int = 4
    dropout: float | Float[Array, ""] = 0.1
    axis_name: str | None = None
    places: Int[Array, " batch"] | None = None
    dtype: Any = jnp.float32


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """The activations that Grad-CAM weighs, and where in the image their cells lie.

    Attributes:
        seen_by: names of the layer whose input they are; a model has one of these.
        first: pixel on which the first cell is centred, in rows as in columns; the centre of pixel 0 is 0.
        stride: pixels from one cell to the next.
    """

    seen_by: tuple[str, ...]
    first: float
    stride: float


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """Options of every model that can start from a converted encoder."""

    encoder: str | None = None
    """Folder of converted weights, for `unet` also a run that segments, or `random` for untrained ones as a control."""
    cache: bool = True
    """Keep the outputs of the frozen part in ~/.cache/jaxcnn; with --no-cache every step computes them."""
    views: int = 8
    """Random versions of each training image whose outputs are kept, with --augment; each epoch takes one of them."""
    width: float = 1.0
    """Factor on the width of every layer but those of a given encoder."""

    def __post_init__(self) -> None:
        """Check the options, with those that a model adds: its learning rate, which has another name for each.

        Raises:
            ValueError: `views` is below 1, the width leaves nothing, or a learning rate is not positive.
        """
        require(self, "views", self.views >= 1, "must be at least 1")
        require_width(self)
        for field in dataclasses.fields(self):
            if field.name.endswith("_learning_rate"):
                require(self, field.name, 0 < getattr(self, field.name) < math.inf, "must be above 0")


def stages_before(first: str, stages: Sequence[str]) -> tuple[str, ...]:
    """The stages that are frozen where `first` is the first that learns; all of them before the head."""
    return tuple(itertools.takewhile(lambda stage: stage != first, stages))


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A row of the table of models.

    Attributes:
        summary: one sentence for the help text.
        module: the class of the network.
        options: a frozen dataclass of the network's own options; they become options of the command line.
        build: the network from (options, classes, encoder); the encoder's module is None for random weights.
        feature_map: for Grad-CAM; None where there is none.
        defaults: of training options, where they differ from those of `TrainOptions`.
        frozen: from the options, the submodules that don't learn; by default none.
        learning_rates: for a submodule at the top, the option that holds its own learning rate.
        encoder: the submodule that may start from converted weights; empty where there is none. The options then are
            `EncoderOptions`.
        task: what the logits are of: an image's class, or the class of each of its pixels.
    """

    summary: str
    module: type[nn.Module]
    options: type[Any]
    build: Callable[[Any, int, nn.Module | None], nn.Module]
    feature_map: FeatureMap | None = None
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen: Callable[[Any], Paths] = lambda _: ()
    learning_rates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    encoder: str = ""
    task: TaskName = "classification"


def require(options: Any, field: str, holds: bool, demand: str) -> None:
    """Check a field of an options dataclass.

    Raises:
        ValueError: "FIELD VALUE: DEMAND"; a command shows it with the name of its option.
    """
    if not holds:
        raise ValueError(f"{field} {getattr(options, field)}: {demand}")


def require_used(options: Any, field: str, used: bool, demand: str) -> None:
    """Check that a field is left at its default where the network doesn't use it: a sweep would compare equal models.

    Raises:
        ValueError: as `require`.
    """
    require(options, field, used or getattr(options, field) == getattr(type(options), field), demand)


def require_width(options: Any) -> None:
    """Check the `width` of a network: no memory holds one that is much wider than usual.

    Raises:
        ValueError: as `require`.
    """
    require(options, "width", 0 < options.width <= 64, "must be above 0 and at most 64")


def scaled(features: int, width: float) -> int:
    """The features of a layer in a network `width` times as wide; at least 1."""
    return max(1, round(width * features))


def check_encoder_width(options: EncoderOptions, standard: int, features: int) -> None:
    """Check that a width, if one is given, is that of the encoder, since nothing else in the network has one.

    Args:
        standard: features of the encoder's first layer where the width is 1.
        features: those that it has.

    Raises:
        ValueError: it is another.
    """
    if options.width != EncoderOptions.width and scaled(standard, options.width) != features:
        own = features / standard
        raise ValueError(f"is {own:g} times as wide as usual; give --width {own:g}, or leave --width out")
