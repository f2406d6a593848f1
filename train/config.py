"""What a run is a function of, beside its data. The fields are the command line's options."""

import dataclasses
import math
from typing import Any, Literal

from jaxcnn.data.augment import ANY_SEQUENCE, BRAIN_MRI, Augmentation
from jaxcnn.data.normalization import NormalizationName
from jaxcnn.data.protocol import Protocol
from jaxcnn.inference.tta import TTAName
from jaxcnn.models.unet_classifier import HeadName
from train.losses import ClassWeightsName, LossName
from train.optimizer import ScheduleName

AugmentationName = Literal["none", "brain-mri", "any-sequence"]
AUGMENTATIONS: dict[AugmentationName, Augmentation] = {
    "none": Augmentation(),
    "brain-mri": BRAIN_MRI,
    "any-sequence": ANY_SEQUENCE,
}

DTypeName = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class ImagesConfig:
    """Options that choose the images, of models and baselines alike."""

    data: str = "phantom"
    """`phantom` (made in memory), or a folder made by `python -m jaxcnn.data prepare`."""
    max_images: int | None = None
    """Use at most this many images of each split, spread evenly over it: for a quick look."""
    protocol: Protocol = "leak-free"
    """`leak-free` trains on no near-duplicate of a test image; `official` keeps them, as published scores do."""
    validation_fraction: float = 0.1
    """Share of the training images held out, class by class and with all their copies, to choose the checkpoint by."""
    split_seed: int = 0
    """Of the choice of the held-out images: runs of several seeds are to differ in their training alone."""

    def __post_init__(self) -> None:
        """Refuse what no images can be chosen by.

        Raises:
            ValueError: the message names the option and the values it takes.
        """
        _require(self, "max_images", self.max_images is None or self.max_images >= 1, "at least 1")
        _require(self, "validation_fraction", 0 < self.validation_fraction < 1, "above 0 and below 1")
        _require(self, "split_seed", 0 <= self.split_seed < 2**32, "at least 0 and below 2**32")


@dataclasses.dataclass(frozen=True)
class TrainConfig(ImagesConfig):
    """Options that every model has."""

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
    crop: bool = False
    """Cut each image down to the head."""
    image_size: int | None = None
    """Height and width of what the network sees; smaller images train faster. Those of the images when not given."""
    normalization: NormalizationName = "none"
    """Of the images' intensities; `per-image-z-score` makes each have mean 0 and deviation 1."""
    augment: AugmentationName = "none"
    """Random changes to the images that are trained on: `brain-mri` turns, zooms, shifts, mirrors and relights them;
    `any-sequence` also redraws the grey curve, for scans of other sequences."""
    loss: LossName = "cross-entropy"
    """`cross-entropy` on logits; `double-softmax` repeats the reference project's slip, to reproduce its curves."""
    label_smoothing: float = 0.0
    """Share of the label's probability that training spreads evenly over all classes; scores are of the plain loss."""
    class_weights: ClassWeightsName = "none"
    """`balanced` trains with weights inversely proportional to the classes' counts among the training images."""
    ema: float = 0.0
    """Share of itself that an exponential moving average of the weights keeps at each step, such as 0.999; the average
    is what is evaluated and kept then. 0 keeps none."""
    tta: TTAName = "none"
    """Test-time augmentation: `flip` predicts the mean probabilities of each image and its mirror image."""
    accumulate: int = 1
    """Micro-batches that a batch goes through in, one after the other, where memory is short. BatchNorm then
    normalises by the micro-batch, as with a smaller batch; all else is that of the whole batch, dropout included."""
    dtype: DTypeName = "float32"
    """Of activations; with `bfloat16` the parameters, the optimizer, the batch statistics and the loss stay float32."""
    checkpoint_every: int = 200
    """Steps between two checkpoints; there is one after each epoch as well."""
    seed: int = 0
    """Of the initial weights, the order of the images, dropout and augmentation."""

    def __post_init__(self) -> None:
        """Refuse what no run can be made of.

        Raises:
            ValueError: the message names the option and the values it takes.
        """
        super().__post_init__()
        _require(self, "image_size", self.image_size is None or self.image_size >= 1, "at least 1")
        _require(self, "epochs", self.epochs >= 1, "at least 1")
        _require(self, "batch_size", self.batch_size >= 1, "at least 1")
        _require(self, "accumulate", self.accumulate >= 1, "at least 1")
        _require(self, "checkpoint_every", self.checkpoint_every >= 1, "at least 1")
        _require(self, "learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        _require(self, "warmup_steps", self.warmup_steps >= 0, "at least 0")
        _require(self, "weight_decay", 0 <= self.weight_decay < math.inf, "at least 0")
        _require(self, "dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        _require(self, "label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1")
        _require(self, "ema", 0 <= self.ema < 1, "at least 0 and below 1")
        if self.label_smoothing and self.loss == "double-softmax":
            # Its probabilities end at 0.48, below what a label is smoothed to: the minimum would stay where it is.
            raise ValueError(
                f"--label-smoothing {self.label_smoothing}: has no use with --loss double-softmax; leave one out"
            )
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


@dataclasses.dataclass(frozen=True)
class UNetConfig(TrainConfig):
    """Options of the classifier on a U-Net's bottleneck."""

    encoder: str | None = None
    """Folder of a U-Net that `python -m convert unet` wrote, or `random` for untrained weights, as a control."""
    train_from: Literal["encoder1", "encoder2", "encoder3", "encoder4", "bottleneck", "head"] = "bottleneck"
    """The first stage that learns; all stages before it are frozen."""
    learning_rate: float = 1e-3
    """Adam's step size for the head, the highest of the schedule."""
    unet_learning_rate: float = 1e-4
    """The same for the stages of the U-Net that learn."""
    normalization: NormalizationName = "per-image-z-score"
    """Of the images; the weights work best with what they were trained with."""
    head: HeadName = "reference"
    """`reference` looks at all places of the bottleneck; `pooled` at each channel's mean and maximum, with a two
    thousandth of the parameters, and for images of any size that the U-Net takes."""
    width: float = 1.0
    """Factor on the width of every layer of the reference head, and of a random encoder."""
    cache: bool = True
    """Compute the frozen stages' outputs once, keep them in ~/.cache/jaxcnn, and train on those."""
    views: int = 8
    """With --augment, unless --no-cache is given: how many random versions of each training image have their outputs
    computed beforehand; each epoch picks one of them for each image."""

    def __post_init__(self) -> None:
        """As for every model; the width must leave something."""
        super().__post_init__()
        _require(self, "views", self.views >= 1, "at least 1")
        _require(self, "unet_learning_rate", 0 < self.unet_learning_rate < math.inf, "above 0")
        _require(self, "width", 0 < self.width < math.inf, "above 0")


def _require(config: ImagesConfig, field: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise ValueError(f"--{field.replace('_', '-')} {getattr(config, field)}: must be {allowed}")


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as config.json holds it."""
    return {"model": MODEL_NAMES[type(config)]} | dataclasses.asdict(config)


def default_options(model: str) -> dict[str, Any]:
    """The options of a model, by its name, that are given none."""
    return next(as_json(config()) for config, name in MODEL_NAMES.items() if name == model)


MODEL_NAMES: dict[type[TrainConfig], str] = {SimpleCNNConfig: "simplecnn", UNetConfig: "unet"}
