"""What a run is a function of, beside its data. The fields are the command line's options."""

import dataclasses
import math
from typing import Any, Literal

from jaxcnn import SimpleCNN
from jaxcnn.data.protocol import Protocol
from train.losses import LossName
from train.optimizer import ScheduleName


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Options that every model has."""

    data: str = "phantom"
    """`phantom` (made in memory), or a folder made by `python -m jaxcnn.data prepare`."""
    max_images: int | None = None
    """Use at most this many images of each split, spread evenly over it: for a quick look."""
    protocol: Protocol = "leak-free"
    """`leak-free` trains on no near-duplicate of a test image; `official` keeps them, as published scores do."""
    validation_fraction: float = 0.1
    """Share of the training images held out, class by class and with all their copies, to choose the checkpoint by."""
    epochs: int = 3
    """Passes over the training images."""
    batch_size: int = 16
    """Images per step."""
    learning_rate: float = 1e-3
    """Adam's step size, the highest of the schedule."""
    schedule: ScheduleName = "cosine"
    """`constant`, or `cosine`: down to 0 over the whole run."""
    warmup_steps: int = 0
    """Steps over which the learning rate first rises from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay on kernels (AdamW); biases and norms are left alone."""
    dropout: float = 0.1
    """Share of activations dropped while training."""
    loss: LossName = "cross-entropy"
    """`cross-entropy` on logits; `double-softmax` repeats the reference project's slip, to reproduce its curves."""
    seed: int = 0
    """Of the initial weights, the order of the images, dropout and the held-out images."""

    def __post_init__(self) -> None:
        """Refuse what no run can be made of.

        Raises:
            ValueError: the message names the option and the values it takes.
        """
        _require(self, "max_images", self.max_images is None or self.max_images >= 1, "at least 1")
        _require(self, "validation_fraction", 0 < self.validation_fraction < 1, "above 0 and below 1")
        _require(self, "epochs", self.epochs >= 1, "at least 1")
        _require(self, "batch_size", self.batch_size >= 1, "at least 1")
        _require(self, "learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        _require(self, "warmup_steps", self.warmup_steps >= 0, "at least 0")
        _require(self, "weight_decay", 0 <= self.weight_decay < math.inf, "at least 0")
        _require(self, "dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        _require(self, "seed", 0 <= self.seed < 2**32, "at least 0 and below 2**32")


@dataclasses.dataclass(frozen=True)
class SimpleCNNConfig(TrainConfig):
    """Options of the SimpleCNN."""

    width: float = 1.0
    """Factor on the width of every layer; 1 gives the reference project's 7.7 million parameters."""
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    """Gate of the squeeze-and-excitation block; `softmax` is the reference project's."""

    def __post_init__(self) -> None:
        """As for every model; the width must leave something."""
        super().__post_init__()
        _require(self, "width", 0 < self.width < math.inf, "above 0")


def _require(config: TrainConfig, field: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise ValueError(f"--{field.replace('_', '-')} {getattr(config, field)}: must be {allowed}")


def build_model(config: SimpleCNNConfig, classes: int) -> SimpleCNN:
    """The untrained module that the configuration names."""

    def scaled(features: int) -> int:
        return max(1, round(config.width * features))

    standard = SimpleCNN()
    stem_first, stem_second = standard.stem_features
    return SimpleCNN(
        classes=classes,
        stem_features=(scaled(stem_first), scaled(stem_second)),
        squeeze_features=scaled(standard.squeeze_features),
        skip_features=scaled(standard.skip_features),
        head_features=scaled(standard.head_features),
        hidden_features=scaled(standard.hidden_features),
        dropout=config.dropout,
        gate=config.gate,
    )


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as config.json holds it."""
    return dataclasses.asdict(config)
