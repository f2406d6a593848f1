"""The options that determine a run, besides its data. The fields are the options of the command line."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

import tyro

from jaxcnn.data.augment import AUGMENTATIONS
from jaxcnn.data.normalization import BY_VOLUME, NORMALIZATIONS
from jaxcnn.data.preprocessing import CROPS, Preprocessing
from jaxcnn.data.protocol import Protocol
from jaxcnn.inference.tta import TTAName
from jaxcnn.models.architecture import Architecture, require, require_used
from jaxcnn.models.table import MODELS
from train.losses import LOSSES, MASK_LOSSES, ClassWeightsName
from train.optimizer import ScheduleName


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """Options of the images, for models and baselines."""

    data: str = "phantom"
    """`phantom` (drawn in memory), a folder that `python -m jaxcnn.data prepare` wrote, or images with masks."""
    max_images: int | None = None
    """Maximum number of images of each split, spread evenly over it, for a quick look."""
    protocol: Protocol = "leak-free"
    """`leak-free` trains on no copy and no patient of a test image; `official` does, as published scores do."""
    validation_fraction: float = 0.1
    """Fraction of each class to hold out for validation, in whole patients, if the data set has no such split."""
    test_fraction: float = 0.2
    """Fraction of the images to hold out for testing in the same way, if the data set has no test images."""
    folds: int | None = None
    """Number of folds for cross-validation; a patient's images and copies stay in one fold."""
    fold: int | None = None
    """With --folds, the fold to test on, from 1; the data set's own test images are then not used."""
    split_seed: int = 0
    """Seed for holding out validation and test images; runs that differ only in --seed share them."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the option, and the values it takes, if one is wrong."""
        require(self, "max_images", self.max_images is None or self.max_images >= 1, "must be at least 1")
        require(self, "validation_fraction", 0 < self.validation_fraction < 1, "must be above 0 and below 1")
        require(self, "test_fraction", 0 < self.test_fraction < 1, "must be above 0 and below 1")
        require(self, "folds", self.folds is None or self.folds >= 2, "must be at least 2")
        if self.fold is not None:
            require(self, "fold", self.folds is not None, "needs --folds: give their number")
            require(self, "fold", 1 <= self.fold <= (self.folds or 1), f"must be 1 to {self.folds}")
        require(self, "split_seed", 0 <= self.split_seed < 2**32, "must be at least 0 and below 2**32")


@dataclasses.dataclass(frozen=True)
class TrainOptions(ImageOptions):
    """Options that every model has."""

    epochs: int = 3
    """Number of passes over the training images."""
    batch_size: int = 16
    """Number of images in a step."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    schedule: ScheduleName = "cosine"
    """Learning-rate schedule after the warm-up: `constant`, or `cosine` for a decay to 0 over the whole run."""
    warmup_steps: int = 0
    """Number of steps over which the learning rate rises linearly from 0 to its peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) of the kernels; biases and norms have none."""
    dropout: float = 0.1
    """Dropout rate."""
    empty_slices: float = 1.0
    """To segment: share of the training slices without a mask to keep, evenly spread; fewer train faster."""
    crop: str = "none"
    """Crop: `head` crops each image to the head; `none` keeps the whole image."""
    image_size: int | None = None
    """Height and width to resize images to, by default those of the data; smaller images train faster."""
    normalization: str = "none"
    """`none`, `per-image-z-score`, `foreground-z-score`, `percentile`, `imagenet`, or `volume-z-score` (by patient)."""
    augment: str = "none"
    """`brain-mri`: rotate, zoom, shift, mirror, blur, brightness; `any-...` also hides the source (docs/recipe.md)."""
    loss: str = "cross-entropy"
    """`cross-entropy`; the reference project's `double-softmax`; or, of masks, `dice` or `dice-cross-entropy`."""
    label_smoothing: float = 0.0
    """Label smoothing of the training objective; reported losses don't include it."""
    class_weights: ClassWeightsName = "none"
    """Class weights: `balanced` weighs each class inversely to its number of training images."""
    ema: float = 0.0
    """EMA decay of the weights, such as 0.999; the averaged weights are evaluated and kept. 0 disables it."""
    tta: TTAName = "none"
    """Test-time augmentation: `flip` averages the probabilities of each image and its mirror image."""
    accumulate: int = 1
    """Number of micro-batches in a batch, to save memory; BatchNorm then normalises by the micro-batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; with `bfloat16` parameters, optimizer, batch statistics and loss stay float32."""
    checkpoint_every: int = 200
    """Number of steps between two checkpoints; each epoch also ends with one."""
    tensorboard: bool = False
    """Also write the scores of each epoch for TensorBoard, in RUN/tensorboard."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, dropout and augmentation."""
    start_from: str | None = None
    """Run folder to start from: its best weights take the place of random ones."""
    start_optimizer: bool = False
    """With --start-from, start with the optimizer's moments in that run's last checkpoint, too."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the option, and the values it takes, if one is wrong."""
        super().__post_init__()
        for field in ("epochs", "batch_size", "accumulate", "checkpoint_every"):
            require(self, field, getattr(self, field) >= 1, "must be at least 1")
        require(self, "image_size", self.image_size is None or 1 <= self.image_size <= 2**14, "must be 1 to 16384")
        require(self, "empty_slices", 0 < self.empty_slices <= 1, "must be above 0 and at most 1")
        require(self, "learning_rate", 0 < self.learning_rate < math.inf, "must be above 0")
        require(self, "warmup_steps", self.warmup_steps >= 0, "must be at least 0")
        require(self, "weight_decay", 0 <= self.weight_decay < math.inf, "must be at least 0")
        for field in ("dropout", "label_smoothing", "ema"):
            require(self, field, 0 <= getattr(self, field) < 1, "must be at least 0 and below 1")
        require(self, "seed", 0 <= self.seed < 2**32, "must be at least 0 and below 2**32")
        require(self, "start_optimizer", not self.start_optimizer or self.start_from is not None, "needs --start-from")
        tables: dict[str, Mapping[str, Any]] = {
            "crop": {"none": None, **CROPS},
            "normalization": NORMALIZATIONS,
            "augment": AUGMENTATIONS,
            "loss": LOSSES,
        }
        for field, table in tables.items():
            require(self, field, getattr(self, field) in table, f"must be one of {', '.join(table)}")
        # The probabilities of double-softmax end at 0.48, below what a label is smoothed to: nothing would change.
        smooth = self.label_smoothing == 0 or self.loss == "cross-entropy"
        require(self, "label_smoothing", smooth, "works only with the loss cross-entropy")

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing of every image."""
        return Preprocessing(crop=self.crop, image_size=self.image_size, normalization=self.normalization)


@dataclasses.dataclass(frozen=True)
class Config:
    """The options that determine a run, besides its data.

    Attributes:
        model: a name in the table of models.
        training: options that every model has.
        network: the model's own options.
    """

    model: str
    training: TrainOptions
    network: Any

    def __post_init__(self) -> None:
        """Raise a ValueError that names the option, if one doesn't suit the others or the model's task."""
        options, task = self.training, self.architecture.task
        divides = options.batch_size % options.accumulate == 0
        require(options, "accumulate", divides, f"must divide the batch size, {options.batch_size}")
        if self.architecture.encoder:
            seen = options.augment != "none" and self.network.cache
            require_used(self.network, "views", seen, "needs an augmentation, and the cache")
        if task == "classification":
            require(options, "loss", options.loss not in MASK_LOSSES, f"needs masks, and {self.model} gives classes")
            require(options, "empty_slices", options.empty_slices == 1, "works only on images with masks")
            by_volume = options.normalization in BY_VOLUME
            require(options, "normalization", not by_volume, "works only on images with masks")
        else:
            require(options, "loss", options.loss != "double-softmax", f"is no loss of masks, which {self.model} gives")
            require(options, "crop", options.crop == "none", "works only on images without masks")
            require(options, "class_weights", options.class_weights == "none", "works only on images without masks")
            moves = hasattr(AUGMENTATIONS[options.augment], "move_masks")
            require(options, "augment", moves, "doesn't say how masks are moved; give it a method move_masks")

    @property
    def architecture(self) -> Architecture:
        """The model's row in the table."""
        return MODELS[self.model]

    @property
    def encoder(self) -> str | None:
        """The folder of the encoder's weights, or `random`; None where none is named, or the model has no encoder."""
        return self.network.encoder if self.architecture.encoder else None

    def to_json(self) -> dict[str, Any]:
        """Return the content of config.json."""
        return {"model": self.model} | dataclasses.asdict(self.training) | dataclasses.asdict(self.network)

    def replace(self, **options: Any) -> "Config":
        """Return the configuration with other values of some options, whichever part they belong to.

        Raises:
            ValueError: the model has no such option, or it doesn't take the value.
        """
        names = {field.name for field in dataclasses.fields(self.network)}
        own = {name: options.pop(name) for name in list(options) if name in names}
        if unknown := sorted(options.keys() - {field.name for field in dataclasses.fields(TrainOptions)}):
            raise ValueError(f"{unknown[0]}: {self.model} has no such option")
        training, network = dataclasses.replace(self.training, **options), dataclasses.replace(self.network, **own)
        return dataclasses.replace(self, training=training, network=network)


def config_class(model: str) -> type[Any]:
    """The class of a model's `Config`, with the types and defaults of its options, for the command line to read."""
    architecture = MODELS[model]
    training = TrainOptions(**architecture.defaults)
    fields = (
        ("model", tyro.conf.Suppress[str], dataclasses.field(default=model)),
        ("training", TrainOptions, dataclasses.field(default=training)),
        ("network", architecture.options, dataclasses.field(default_factory=architecture.options)),
    )
    return dataclasses.make_dataclass(model, fields, bases=(Config,), frozen=True)


def any_config_class() -> Any:
    """The type of a command's `config` whose first argument is a model of the table."""
    classes = [Annotated[config_class(model), tyro.conf.subcommand(model)] for model in MODELS]
    return Union[tuple(classes)]  # noqa: UP007


def make_config(model: str, **options: Any) -> Config:
    """Make the configuration of a model; options that are not given have the model's defaults.

    Raises:
        ValueError: there is no such model or option, or it doesn't take the value.
    """
    if model not in MODELS:
        raise ValueError(f"{model}: there is no such model; choose one of {', '.join(MODELS)}")
    architecture = MODELS[model]
    return Config(model, TrainOptions(**architecture.defaults), architecture.options()).replace(**options)
