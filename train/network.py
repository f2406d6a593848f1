"""Split a model for training: a frozen part, and a part that learns."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.stages import Traced
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxcnn.cpu import xla_only
from jaxcnn.data.augment import AUGMENTATIONS, Augment, Augmentation
from jaxcnn.data.preprocessing import Preprocessing, as_inputs
from jaxcnn.errors import UserError
from jaxcnn.inference.pretrained import open_pretrained
from jaxcnn.inference.segmentation import load_encoder, load_segmenter
from jaxcnn.models.architecture import RANDOM, ChannelsError, Paths
from jaxcnn.runs.folder import Run
from train.options import Config
from train.start import start_weights

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """How a model is trained.

    Attributes:
        model: the module; `apply(variables, images, train=...)` gives logits.
        frozen: the submodules that don't learn. If there are any, the model is `classify(encode(images))`.
        on_features: the batches hold the outputs of the frozen part in the place of images.
        given: variables by their path, of a converted encoder or of another run, which take the place of random ones.
    """

    model: nn.Module
    preprocessing: Preprocessing
    augmentation: Augment
    frozen: Paths = ()
    on_features: bool = False
    given: Mapping[tuple[str, ...], Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def method(self) -> str | None:
        """The module's method that is the part that learns; None for the whole module."""
        return "classify" if self.frozen else None

    def inputs(
        self, frozen: Variables, batch: Array, keys: Key[Array, " batch"] | None = None
    ) -> Float[Array, "batch ..."]:
        """What the part that learns takes.

        Args:
            frozen: the variables of the frozen part.
            batch: framed images as bytes, or features.
            keys: one an example for what is random; None where nothing is to be.
        """
        if self.on_features:
            return batch
        images = as_inputs(batch, self.preprocessing, self.augmentation, keys)
        return cast(Array, self.model.apply(frozen, images, method="encode")) if self.frozen else images

    def targets(
        self,
        labels: Int[Array, " batch"] | UInt8[Array, "batch height width"],
        keys: Key[Array, " batch"] | None = None,
    ) -> Int[Array, " batch *space"]:
        """What the logits are to tell: labels, or masks that are moved as `inputs` moves their images."""
        if labels.ndim == 1:
            return labels
        masks = labels.astype(jnp.int32)
        moved = cast(Augmentation, self.augmentation)
        return masks if keys is None else moved.move_masks(keys, masks, cast(Any, self.model).classes)

    def split(self, variables: Variables) -> tuple[dict[str, Any], dict[str, Any]]:
        """Separate the variables of the frozen part from the others: `params` and `batch_stats`, which may be empty."""
        frozen: dict[tuple[str, ...], Any] = {}
        learning: dict[tuple[str, ...], Any] = {}
        for path, leaf in flatten_dict(variables).items():
            is_frozen = any(path[1 : 1 + len(names)] == names for names in self.frozen)
            (frozen if is_frozen else learning)[path] = leaf
        return unflatten_dict(frozen), {"params": {}, "batch_stats": {}} | unflatten_dict(learning)


def build_network(config: Config, classes: int, image_shape: tuple[int, int, int]) -> Network:
    """Build the network of a configuration for images of a shape (height, width, channel).

    Raises:
        UserError: the encoder is missing, damaged or doesn't fit, or the network doesn't take images of this size.
    """
    architecture, training = config.architecture, config.training
    model, given = _build_model(config, classes)
    network = Network(
        model=model.clone(dropout=training.dropout, dtype=jnp.dtype(training.dtype)),
        preprocessing=training.preprocessing,
        augmentation=AUGMENTATIONS[training.augment],
        frozen=architecture.frozen(config.network),
        given={**given, **start_weights(training, model)},
    )
    shape = training.preprocessing.seen_shape(image_shape)
    try:
        draw_variables(network, shape)
    except ChannelsError as error:
        raise UserError(f"--normalization {training.normalization}: {error}; choose another") from error
    except ValueError as error:
        raise UserError(f"--image-size {shape[0]}: {error}; choose another size") from error
    return network


def check_encoder(config: Config) -> None:
    """Raise a UserError if the model needs an encoder, and the options name none that fits."""
    if config.architecture.encoder and config.encoder is None and config.training.start_from is None:
        raise UserError(
            f"--encoder is missing: name the folder of converted weights, which `python -m convert {config.model} --hub"
            f" weights` (with a connection) or `python -m convert {config.model} CHECKPOINT.pt weights` writes, or"
            " `random` for untrained weights"
        )
    if config.encoder not in (None, RANDOM):
        folder = Path(config.encoder)
        segments = Run(folder).kind == "trained"
        _build_on(config, 1, load_segmenter(folder).model if segments else open_pretrained(folder)[1])


def _build_model(config: Config, classes: int) -> tuple[nn.Module, dict[tuple[str, ...], Any]]:
    """The module, and the variables of a given encoder by their paths in it."""
    check_encoder(config)
    if config.encoder in (None, RANDOM):
        return config.architecture.build(config.network, classes, None), {}
    encoder, own = load_encoder(Path(config.encoder))
    name = config.architecture.encoder
    variables = {(collection, name, *path): leaf for (collection, *path), leaf in flatten_dict(own).items()}
    return _build_on(config, classes, encoder), variables


def _build_on(config: Config, classes: int, encoder: nn.Module) -> nn.Module:
    try:
        return config.architecture.build(config.network, classes, encoder)
    except ValueError as error:
        raise UserError(f"--encoder {config.encoder}: {error}") from error


def draw_variables(
    network: Network, image_shape: tuple[int, int, int]
) -> tuple[dict[str, Any], Callable[[int], dict[str, Any]]]:
    """The shapes of the variables for framed images of this shape, and a function that draws them from a seed.

    The shapes are known at once, so that the steps can be traced for them while another thread compiles and runs the
    function.

    Raises:
        ValueError: the network doesn't take images of this shape, or the given variables are for others; of their
            channels a `ChannelsError`.
    """
    # Dropout has no weights: models that differ in it alone are traced and compiled once.
    model = network.model.clone(dropout=0.0)
    traced = _trace_initializer(model, image_shape)

    shapes = flatten_dict(traced.out_info)
    for path, leaf in network.given.items():
        if leaf.shape != (shape := shapes[path].shape):
            # The kernel of a convolution is (height, width, channels, features).
            kind = ChannelsError if leaf.ndim == 4 and leaf.shape[2] != shape[2] else ValueError
            raise kind(f"{'/'.join(path)} has the shape {leaf.shape}, but {shape} for such images")

    def with_given(variables: Variables) -> dict[str, Any]:
        return unflatten_dict(flatten_dict(variables) | network.given)

    def draw(seed: int) -> dict[str, Any]:
        return with_given(_compile_initializer(model, image_shape)(jax.random.key(seed)))

    return jax.eval_shape(with_given, traced.out_info), draw


@functools.cache
def _trace_initializer(model: nn.Module, image_shape: tuple[int, int, int]) -> Traced:
    def initialize(key: jax.Array) -> dict[str, Any]:
        return dict(model.init(key, jnp.zeros((1, *image_shape)), train=False))

    # No weight depends on what a convolution gives, and XLA's own is traced faster.
    with xla_only():
        return jax.jit(initialize).trace(jax.random.key(0))


@functools.cache
def _compile_initializer(model: nn.Module, image_shape: tuple[int, int, int]) -> Callable[..., dict[str, Any]]:
    # It runs once or a few times, so that what counts is the time to compile: without optimisation, and by XLA's older
    # emitters, it is a sixth. An XLA that has them no more takes the option for an error.
    lowered = _trace_initializer(model, image_shape).lower()
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
    try:
        return lowered.compile(options | {"xla_cpu_use_fusion_emitters": False})
    except jax.errors.JaxRuntimeError:
        return lowered.compile(options)
