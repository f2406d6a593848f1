"""What is told of a conversion: to people as a table, to programs as the manifest."""

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax

from convert.checkpoint import Checkpoint
from convert.conversion import Conversion
from convert.parity import TOLERANCE, Difference
from convert.recipes import Recipe
from jaxcnn.inference.pretrained import Manifest
from jaxcnn.models.table import model_fields

PACKAGES = ("jaxcnn", "torch", "jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")


def manifest(checkpoint: Checkpoint, recipe: Recipe, conversion: Conversion) -> Manifest:
    """The manifest of what is written."""
    return Manifest(
        model=type(recipe.model).__name__,
        fields=model_fields(recipe.model),
        image_shape=recipe.image_shape,
        normalization=recipe.normalization,
        note=recipe.note,
        source=checkpoint.path.name,
        source_sha256=checkpoint.sha256,
        counts=_counts(checkpoint, conversion),
        converted_to_float32=conversion.converted_types,
        paths=conversion.mapped.paths,
        left_out=conversion.mapped.left_out,
        parity=tuple(_as_json(difference) for difference in conversion.differences),
        tolerance=TOLERANCE,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def _counts(checkpoint: Checkpoint, conversion: Conversion) -> dict[str, int]:
    variables = conversion.mapped.variables
    parameters, statistics = (jax.tree.leaves(variables[name]) for name in ("params", "batch_stats"))
    return {
        "entries": len(checkpoint.tensors),
        "left_out": len(conversion.mapped.left_out),
        "parameter_arrays": len(parameters),
        "parameters": sum(array.size for array in parameters),
        "statistic_arrays": len(statistics),
        "statistics": sum(array.size for array in statistics),
    }


def _as_json(difference: Difference) -> dict[str, Any]:
    return {
        "block": difference.block,
        "shape": list(difference.shape),
        "absolute": difference.absolute,
        "relative": difference.relative,
    }


def report(checkpoint: Checkpoint, recipe: Recipe, conversion: Conversion) -> str:
    """The report, for people."""
    told = manifest(checkpoint, recipe, conversion)
    counts = told.counts
    lines = [
        f"source    {told.source}, SHA-256 {told.source_sha256}",
        f"model     {told.model}, {counts['parameters']:,} parameters",
        f"mapped    {counts['entries']} entries: {counts['parameter_arrays']} arrays of parameters, "
        f"{counts['statistic_arrays']} of batch statistics, {counts['left_out']} left out",
    ]
    lines += [f"left out  {count} x {reason}" for reason, count in Counter(told.left_out.values()).items()]
    lines += [f"cast      {count} arrays from {name} to float32" for name, count in told.converted_to_float32.items()]
    height, width, channels = recipe.image_shape
    lines += [
        f"images    normalization {told.normalization}",
        f"note      {told.note}",
        f"parity    torch {told.versions['torch']} and jax {told.versions['jax']} on the CPU in float32, "
        f"normal noise of {height}x{width}x{channels}; tolerance {TOLERANCE:g} relative",
    ]
    return "\n".join(lines) + "\n\n" + parity_table(conversion.differences)


def parity_table(differences: Sequence[Difference]) -> str:
    """One line for each block."""
    width = max(len(difference.block) for difference in differences)
    lines = [f"{'block':<{width}}  {'shape':<18}  {'absolute':>8}  {'relative':>8}"]
    for difference in differences:
        shape = " x ".join(map(str, difference.shape))
        mark = "" if difference.within_tolerance else "  over the tolerance"
        lines.append(
            f"{difference.block:<{width}}  {shape:<18}  {difference.absolute:>8.1e}  {difference.relative:>8.1e}{mark}"
        )
    return "\n".join(lines)
