"""Converted weights: written by convert, read by training and figures.

OUT/manifest.json       where the weights came from, which model they belong to, and the proof that they are right
OUT/...                 Orbax's files: `params` and `batch_stats`
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from jaxcnn.data.normalization import NORMALIZATIONS, NormalizationName
from jaxcnn.errors import UserError
from jaxcnn.models.table import build_model, model_fields, variable_shapes
from jaxcnn.models.unet import UNet
from jaxcnn.runs.trees import load_tree, read_manifest, save_tree


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
    """

    model: str
    fields: dict[str, Any]
    image_shape: tuple[int, int, int]
    normalization: NormalizationName
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


def load_pretrained(folder: Path) -> Pretrained:
    """The model and its variables, on the default device.

    Raises:
        UserError: the folder is not what `python -m convert` writes, or is damaged.
    """
    manifest, model = open_pretrained(folder)
    return load_variables(folder, manifest, model)


def load_unet(folder: Path, *, encoder_only: bool = False) -> Pretrained:
    """A U-Net; with `encoder_only` just encoder 1 to 4 and the bottleneck are read, all that `UNet.encode` uses.

    Raises:
        UserError: the folder holds another model; and as for `load_pretrained`.
    """
    manifest, model = open_pretrained(folder)
    if not isinstance(model, UNet):
        raise UserError(f"{folder}: holds a {manifest.model}, not a UNet; python -m convert unet writes one")
    return load_variables(folder, manifest, model, method="encode" if encoder_only else None)


def open_pretrained(folder: Path) -> tuple[Manifest, nn.Module]:
    """What the folder holds, without its arrays.

    Raises:
        UserError: the folder is not what `python -m convert` writes, or is damaged.
    """
    content = read_manifest(folder)
    try:
        manifest = Manifest(**content | {key: tuple(content[key]) for key in ("image_shape", "parity")})
        model = build_model(manifest.model, manifest.fields)
        NORMALIZATIONS[manifest.normalization]
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: has a manifest of another version; convert the weights again") from error
    return dataclasses.replace(manifest, fields=model_fields(model)), model


def load_variables(folder: Path, manifest: Manifest, model: nn.Module, method: str | None = None) -> Pretrained:
    """The variables that this method of the model uses, on the default device.

    Raises:
        UserError: the arrays are damaged.
    """
    shapes = variable_shapes(model, manifest.image_shape, method)
    try:
        return Pretrained(model, load_tree(folder, shapes), manifest)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{error}; convert the weights again") from error
