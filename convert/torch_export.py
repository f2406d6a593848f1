"""Export the variables of a run, or converted ones, as a file for PyTorch."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import safetensors.numpy
import torch

from convert.conversion import convert_back
from convert.custom import load_recipe, told_in_one_line
from convert.mapping import TableError
from convert.recipe import Recipe
from convert.recipes import recipe_for
from convert.report import first_difference, report_back
from jaxcnn import UNet
from jaxcnn.inference.pretrained import load_pretrained
from jaxcnn.inference.trained import load_best
from jaxcnn.models.segmentation import SegmentationUNet
from jaxcnn.runs.files import telling_unwritable, whole_file
from jaxcnn.runs.folder import Run


def export_to_torch(folder: Path, out: Path, own_recipe: str | None) -> int:
    """Write the state_dict of a run or of converted weights if it is proven, and return the exit code.

    Raises:
        UserError: the folder holds neither, or no PyTorch network is known of the model, or `out` can't be written.
    """
    with told_in_one_line(Path(own_recipe.rpartition(":")[0])) if own_recipe else contextlib.nullcontext():
        recipe, variables, counters = _read(folder, own_recipe)
        try:
            conversion = convert_back(jax.device_get(variables), recipe, counters)
        except TableError as error:
            if own_recipe:
                raise
            raise TableError(f"{folder}: {error}") from error
    print(report_back(folder.name, recipe, conversion))
    if conversion.unproven:
        reason = first_difference(conversion.unproven)
        print(f"error: {folder}: not proven, so nothing was written: {reason}", file=sys.stderr)
        return 1
    with telling_unwritable(out, "choose another place"), whole_file(out) as temporary:
        _write(conversion.state, temporary)
    print(f"\n{out}")
    return 0


def _read(folder: Path, own_recipe: str | None) -> tuple[Recipe, Mapping[str, Any], Mapping[str, int]]:
    """The recipe, the variables, and how many batches the BatchNorms have seen, if that is known."""
    if Run(folder).kind == "trained":
        trained = load_best(Run(folder))
        size, _, _ = trained.preprocessing.framed_shape(trained.image_shape)
        normalization, model, classes = trained.preprocessing.normalization, trained.model, trained.classes
        if isinstance(model, SegmentationUNet):
            # PyTorch's network has no logit of the background, which is 0, and no names.
            channels = trained.preprocessing.seen_shape(trained.image_shape)[2]
            model, classes = UNet(channels, model.out_channels, model.features), ()
        return recipe_for(model, size, normalization, classes), trained.variables, {}
    if own_recipe is not None:
        recipe = load_recipe(own_recipe)
        pretrained = load_pretrained(folder, model=recipe.model)
        return recipe, pretrained.variables, pretrained.manifest.counters
    pretrained = load_pretrained(folder)
    manifest = pretrained.manifest
    recipe = recipe_for(pretrained.model, manifest.image_shape[0], manifest.normalization, manifest.classes)
    return recipe, pretrained.variables, manifest.counters


def _write(state: Mapping[str, torch.Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        arrays = {key: tensor.numpy() for key, tensor in state.items()}
        # What PyTorch's own writers put there, and some of its readers ask for.
        path.write_bytes(safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    else:
        torch.save(dict(state), path)
