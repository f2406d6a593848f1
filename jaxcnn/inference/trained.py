"""Save and load a trained classifier: training writes it; prediction, saliency and export read it.

RUN/best/manifest.json      the model, what is done to images before it, its classes, and where it comes from
RUN/best/...                Orbax's files: `params`, `batch_stats`, and `unlike` of a run that has ended
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Float, Num, Shaped, UInt8

from jaxcnn.data.batch import in_batches
from jaxcnn.data.preprocessing import Preprocessing, preprocess, preprocessing_from_json
from jaxcnn.errors import UserError
from jaxcnn.inference.pretrained import Side, build_described, described_shapes
from jaxcnn.inference.tta import VIEWS, TTAName, average_probabilities, views_of
from jaxcnn.models.table import model_fields
from jaxcnn.runs.folder import Run
from jaxcnn.runs.json_files import Count, read_json
from jaxcnn.runs.trees import load_tree, read_manifest, read_unchanged, save_tree

_WRITER = "python -m train"


class _Manifest(TypedDict):
    model: str
    fields: dict[str, Any]
    preprocessing: dict[str, Any]
    image_shape: tuple[Side, Side, Side]
    classes: list[str]
    epoch: Count
    tta: NotRequired[str]
    dtype: NotRequired[Literal["float32", "bfloat16"]]
    unlike: NotRequired[Side]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A classifier: `model.apply(variables, preprocess(images, preprocessing), train=False)` gives logits of a view.

    Attributes:
        variables: what `model.apply` takes.
        preprocessing: of images as bytes.
        image_shape: (height, width, channel) of the images.
        classes: names, in the order of the logits.
        epoch: after which the weights were taken; None where they were converted.
        tta: the views of an image that its probabilities are the mean over.
        unlike: `mean` and `whitening` of the training images' features (`jaxcnn.inference.unlike`); None where they
            are not known.
    """

    model: nn.Module
    variables: Mapping[str, Any]
    preprocessing: Preprocessing
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    epoch: int | None
    tta: TTAName = "none"
    unlike: Mapping[str, Any] | None = None


Members = tuple[Trained, ...]
"""Of an ensemble, at least one: they know the same classes and take the same images."""


def save_trained(folder: Path, trained: Trained) -> None:
    """Save a classifier, and replace the one in the folder.

    Raises:
        UserError, OSError: see `jaxcnn.runs.trees.save_tree`.
    """
    manifest: dict[str, Any] = {
        "model": type(trained.model).__name__,
        "fields": model_fields(trained.model),
        "preprocessing": dataclasses.asdict(trained.preprocessing),
        "image_shape": trained.image_shape,
        "classes": trained.classes,
        "epoch": trained.epoch,
        "tta": trained.tta,
        # That of the activations, in which it was judged.
        "dtype": jnp.dtype(cast(Any, trained.model).dtype).name,
    }
    tree = dict(jax.device_get(trained.variables))
    if trained.unlike is not None:
        tree["unlike"] = jax.device_get(dict(trained.unlike))
        manifest["unlike"] = len(trained.unlike["mean"])
    save_tree(folder, tree, manifest, overwrite=True)


def load_trained(folder: Path) -> Trained:
    """Load the classifier in the folder on the default device.

    Raises:
        UserError: there is none, or it is damaged.
    """

    def load() -> Trained:
        return _described(folder, read_description(folder), partial(load_tree, folder, writer=_WRITER))

    return read_unchanged(folder, load)


def read_description(folder: Path) -> dict[str, Any]:
    """Read what the folder says of its classifier, such as its `epoch` and its `classes`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return read_manifest(folder, _Manifest, writer=_WRITER)


def read_trained(manifest: Path, load: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Trained:
    """Read a classifier whose weights lie elsewhere.

    Args:
        manifest: a file as `save_trained` writes it.
        load: gives the variables from their shapes.

    Raises:
        UserError: it is missing, damaged or of another version, or `load` raises it.
    """
    return _described(manifest, read_json(manifest, _Manifest, way_out="get it again"), load)


def _described(
    folder: Path, content: Mapping[str, Any], load: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Trained:
    height, width, channels = content["image_shape"]
    try:
        preprocessing = preprocessing_from_json(content["preprocessing"])
        msgspec.convert(dataclasses.asdict(preprocessing), Preprocessing)
        # Classifiers that were saved before there was a choice have one view, and activations of float32.
        tta, dtype = content.get("tta", "none"), content.get("dtype", "float32")
        VIEWS[tta]
        model: Any = build_described(content["model"], content["fields"])
        if len(set(content["classes"])) != getattr(model, "classes", len(content["classes"])):
            raise ValueError("the names of the classes are not those of its logits")
        shapes = described_shapes(model, preprocessing.seen_shape((height, width, channels)))
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise UserError(f"{folder}: was written by another version; train again") from error
    if known := content.get("unlike"):
        mean, whitening = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((known,), (known, known)))
        shapes |= {"unlike": {"mean": mean, "whitening": whitening}}
    variables = load(shapes)
    unlike = variables.pop("unlike", None)
    model = model.clone(dtype=jnp.dtype(dtype))
    about = (preprocessing, (height, width, channels), tuple(content["classes"]), content["epoch"], tta)
    return Trained(model, variables, *about, unlike)


def load_best(run: Run) -> Trained:
    """Load the best classifier of a run on the default device.

    Raises:
        UserError: it has none, or a damaged one.
    """
    if not run.best.is_dir():
        raise UserError(
            f"{run.folder}: has no network (no best/), because it is a baseline or stopped in its first epoch;"
            " give a run of python -m train simplecnn or unet"
        )
    return load_trained(run.best)


def classify(
    members: Members, images: UInt8[Array | np.ndarray, "batch height width channel"]
) -> Float[Array, "batch classes"]:
    """Compute the probability of each class for images as bytes: the mean of what the members give it.

    Lakshminarayanan, Pritzel and Blundell: Simple and scalable predictive uncertainty estimation using deep ensembles.
    NeurIPS 2017.
    """
    first, *others = (jax.nn.softmax(compute_logits(trained, images)) for trained in members)
    return sum(others, first) / len(members)


def compute_logits(
    trained: Trained, images: Num[Array | np.ndarray, "batch height width channel"], *, prepared: bool = False
) -> Float[Array, "batch *space classes"]:
    """Compute the logits of images as bytes, or of inputs that are `prepared` already.

    Of several views they are the logarithm of the mean probabilities.
    """
    views = views_of(jnp.asarray(images), trained.tta)
    inputs = jnp.stack(views, axis=1).reshape(-1, *images.shape[1:])
    if not prepared:
        inputs = preprocess(inputs, trained.preprocessing)
    logits = trained.model.apply(trained.variables, inputs, train=False)
    return average_probabilities(cast(Array, logits), len(views))


def compile_with_weights(function: Callable[..., Any], members: Members) -> partial[Any]:
    """`function(members, *arguments)` without the members, compiled once for each shape of the arguments."""

    @jax.jit
    def compiled(variables: Sequence[Mapping[str, Any]], *arguments: Array) -> Any:
        pairs = zip(members, variables, strict=True)
        return function(tuple(dataclasses.replace(trained, variables=own) for trained, own in pairs), *arguments)

    # As an argument the weights are shared; as constants of the program they would be copied into it for each shape.
    return partial(compiled, [trained.variables for trained in members])


def predict_logits(
    trained: Trained,
    images: UInt8[np.ndarray, "n height width channel"],
    batch_size: int = 32,
    output: Callable[[Array], Array] = lambda logits: logits.astype(jnp.float32),
) -> Shaped[np.ndarray, "n ..."]:
    """Compute the logits of many images in batches, or what `output` makes of them; see `classify`."""
    compiled = compile_with_weights(lambda members, batch: output(compute_logits(members[0], batch)), (trained,))
    return in_batches(compiled, images, batch_size)
