"""Converted weights: written by convert, read by training and figures.

OUT/manifest.json       where the weights came from, which model they belong to, and the proof that they are right
OUT/...                 Orbax's files: `params` and `batch_stats`
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import flax.linen as nn
import msgspec

from jaxcnn.data.normalization import NORMALIZATIONS
from jaxcnn.errors import UserError
from jaxcnn.models.table import build_model, model_fields, variable_shapes
from jaxcnn.runs.trees import load_tree, read_manifest, read_unchanged, save_tree

# Products of such numbers fit into the 64 bits in which XLA counts; where they don't it ends the process.
Side = Annotated[int, msgspec.Meta(ge=1, le=2**14)]
_Width = Annotated[int, msgspec.Meta(ge=0, le=2**16)]
_FIELDS = dict[str, _Width | float | str | bool | list[_Width] | None]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What manifest.json holds.

    Attributes:
        model: name of the module's class.
        fields: the module's.
        image_shape: (height, width, channel) of images that fit it.
        normalization: of the images, a name in `jaxcnn.data.normalization`.
        note: what else a user of the weights should know.
        source: name of the converted file.
        source_sha256: of the converted file.
        counts: entries of the file, arrays and numbers of each collection.
        converted_to_float32: how many arrays had which other type.
        paths: for each key of the file, the leaf that it became.
        left_out: for each key of the file that became none, the reason.
        parity: for each block, the largest absolute and relative difference to PyTorch's outputs, and their shape.
        tolerance: of the relative differences.
        versions: of the packages that took part.
        classes: names of the logits, where the network is a classifier and they are known.
        arguments: of the module beside the images, with which it infers.
        counters: how many batches each BatchNorm had seen, which only PyTorch keeps.
    """

    model: str
    fields: dict[str, Any]
    image_shape: tuple[int, int, int]
    normalization: str
    note: str
    source: str
    source_sha256: str
    counts: dict[str, int]
    converted_to_float32: dict[str, int]
    paths: dict[str, str]
    left_out: dict[str, str]
    parity: tuple[dict[str, Any], ...]
    tolerance: float
    versions: dict[str, str]
    # Folders that were written before these have none.
    classes: tuple[str, ...] = ()
    arguments: dict[str, Any] = dataclasses.field(default_factory=lambda: {"train": False})
    counters: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model, the variables that `model.apply` takes, and where they came from."""

    model: nn.Module
    variables: dict[str, Any]
    manifest: Manifest


def save_pretrained(folder: Path, variables: Mapping[str, Any], manifest: Manifest, *, overwrite: bool) -> None:
    """Write converted weights; the folder appears whole or not at all.

    Raises:
        UserError, OSError: see `jaxcnn.runs.trees.save_tree`.
    """
    save_tree(folder, variables, dataclasses.asdict(manifest), overwrite=overwrite)


def load_pretrained(folder: Path, method: str | None = None, *, model: nn.Module | None = None) -> Pretrained:
    """Load the model that was converted and the variables that one of its methods uses, on the default device.

    Args:
        method: all of the model's variables if not given.
        model: yours, if it is a network of your own that was converted.

    Raises:
        UserError: the folder is not what `python -m convert` writes, or is damaged.
    """

    def load() -> Pretrained:
        manifest, module = open_pretrained(folder, model)
        try:
            shapes = described_shapes(module, manifest.image_shape, method, manifest.arguments)
        except ValueError as error:
            raise _of_another_version(folder) from error
        return Pretrained(module, load_tree(folder, shapes), manifest)

    return read_unchanged(folder, load)


def open_pretrained(folder: Path, model: nn.Module | None = None) -> tuple[Manifest, nn.Module]:
    """Read the manifest of converted weights; `model` is yours, if it is a network of your own.

    Raises:
        UserError: the folder is not what `python -m convert` writes, or is damaged.
    """
    content = read_manifest(folder)
    try:
        # What a newer version adds may be needed to use the weights rightly.
        if unknown := content.keys() - {field.name for field in dataclasses.fields(Manifest)}:
            raise KeyError(min(unknown))
        manifest = msgspec.convert(content, Manifest)
        NORMALIZATIONS[manifest.normalization]
        model = build_described(manifest.model, manifest.fields) if model is None else model
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise _of_another_version(folder) from error
    return dataclasses.replace(manifest, fields=model_fields(model)), model


def _of_another_version(folder: Path) -> UserError:
    return UserError(f"{folder}: was written by another version; convert the weights again")


def build_described(name: str, fields: Mapping[str, Any]) -> nn.Module:
    """The module that a manifest describes.

    Raises:
        UserError, TypeError, msgspec.ValidationError: there is none of this name or with these fields.
    """
    build_model(name, {})  # A name that isn't known comes first: the fields of a network of one's own may be anything.
    return build_model(name, msgspec.convert(fields, _FIELDS))


def described_shapes(
    model: nn.Module,
    image_shape: tuple[int, ...],
    method: str | None = None,
    arguments: Mapping[str, Any] = MappingProxyType({"train": False}),
) -> dict[str, Any]:
    """The shapes of the variables that this method of a module uses, whatever a manifest says of it.

    Raises:
        ValueError: the module can't be, or not for images of this shape.
    """
    try:
        return variable_shapes(model, msgspec.convert(image_shape, tuple[Side, Side, Side]), method, arguments)
    except Exception as error:  # A field of another type fails anywhere in Flax.
        raise ValueError(f"{model} doesn't take images of {image_shape}") from error
