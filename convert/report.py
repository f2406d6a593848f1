"""Report a conversion as a table and as the manifest."""

import dataclasses
import importlib.metadata
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax

from convert.checkpoint import Checkpoint
from convert.conversion import Conversion
from convert.proof import TOLERANCE, Difference
from convert.recipe import Recipe
from jaxcnn.inference.pretrained import Manifest
from jaxcnn.models.table import model_fields

PACKAGES = ("jaxcnn", "torch", "jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")
# So many names are listed of what was ignored.
_LISTED = 6


def manifest(checkpoint: Checkpoint, recipe: Recipe, conversion: Conversion) -> Manifest:
    """Make the manifest of the converted weights."""
    assert conversion.fitted is not None
    counters = {key: tensor for key, tensor in conversion.state.items() if key.endswith("num_batches_tracked")}
    return Manifest(
        model=type(recipe.model).__name__,
        fields={name: _jsonable(value) for name, value in model_fields(recipe.model).items()},
        image_shape=recipe.image_shape,
        normalization=recipe.normalization,
        note=recipe.note,
        source=checkpoint.path.name,
        source_sha256=checkpoint.sha256,
        counts=_counts(conversion) | {"entries": len(checkpoint.tensors)},
        converted_to_float32=conversion.fitted.cast,
        paths=conversion.plan.paths,
        left_out=dict(conversion.plan.left_out),
        parity=tuple(_as_json(difference) for difference in conversion.differences),
        tolerance=TOLERANCE,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        classes=recipe.classes,
        arguments={name: _jsonable(value) for name, value in recipe.arguments.items()},
        counters={key: int(tensor) for key, tensor in counters.items()},
    )


def _jsonable(value: Any) -> Any:
    """A field of a module; what JSON doesn't know, such as a function, as text."""
    return value if isinstance(value, str | int | float | bool | tuple | list | None) else repr(value)


def _counts(conversion: Conversion) -> dict[str, int]:
    parameters, statistics = (jax.tree.leaves(conversion.variables.get(name, {})) for name in ("params", "batch_stats"))
    return {
        "left_out": len(conversion.plan.left_out),
        "parameter_arrays": len(parameters),
        "parameters": sum(array.size for array in parameters),
        "statistic_arrays": len(statistics),
        "statistics": sum(array.size for array in statistics),
    }


def _as_json(difference: Difference) -> dict[str, Any]:
    row = dataclasses.asdict(difference) | {"shape": list(difference.shape)}
    return {name: value for name, value in row.items() if name != "detail"}


def report(checkpoint: Checkpoint, recipe: Recipe, conversion: Conversion) -> str:
    """Format the report of a conversion from PyTorch."""
    fitted = conversion.fitted
    assert fitted is not None
    counts = _counts(conversion)
    lines = [
        f"source    {checkpoint.path.name}, SHA-256 {checkpoint.sha256}",
        f"model     {type(recipe.model).__name__}, {counts['parameters']:,} parameters",
        f"mapped    {len(checkpoint.tensors)} entries: {counts['parameter_arrays']} arrays of parameters, "
        f"{counts['statistic_arrays']} of batch statistics, {counts['left_out']} left out",
    ]
    lines += [f"left out  {count} x {reason}" for reason, count in Counter(conversion.plan.left_out.values()).items()]
    if checkpoint.ignored:
        more = f" and {len(checkpoint.ignored) - _LISTED} more" if len(checkpoint.ignored) > _LISTED else ""
        lines += [f"ignored   beside the weights: {', '.join(checkpoint.ignored[:_LISTED])}{more}"]
    if fitted.stripped:
        lines += [f"stripped  {fitted.stripped} from the beginning of each name"]
    if fitted.absent:
        lines += [f"absent    {len(fitted.absent)} entries that are left out anyway"]
    lines += [f"cast      {count} arrays from {name} to float32" for name, count in fitted.cast.items()]
    lines += [f"images    normalization {recipe.normalization}"]
    return "\n".join([*lines, *_proof_lines(recipe), "", proof_table(conversion.differences)])


def report_back(source: str, recipe: Recipe, conversion: Conversion) -> str:
    """Format the report of a conversion to PyTorch."""
    lines = [
        f"source    {source}",
        f"network   {type(recipe.build_network()).__name__}, {len(conversion.state)} entries",
        f"images    {' x '.join(map(str, recipe.image_shape))}, normalization {recipe.normalization}",
    ]
    missing = [reason for key, reason in conversion.plan.left_out.items() if key not in conversion.state]
    lines += [f"not in it {count} x {reason}" for reason, count in Counter(missing).items()]
    return "\n".join([*lines, *_proof_lines(recipe), "", proof_table(conversion.differences)])


def _proof_lines(recipe: Recipe) -> list[str]:
    torch_version, jax_version = (importlib.metadata.version(name) for name in ("torch", "jax"))
    shape = "x".join(map(str, recipe.proof_shape or recipe.image_shape))
    return [
        *([f"note      {recipe.note}"] if recipe.note else []),
        f"proof     torch {torch_version} and jax {jax_version} on the CPU in float32, with these weights and with "
        f"random ones,\n          normal noise of {shape}; tolerance {TOLERANCE:g} relative",
    ]


def proof_table(differences: Sequence[Difference]) -> str:
    """One line for each module of the network itself: how many blocks are in it, and the largest difference of any."""
    rows: dict[str, list[Difference]] = {}
    for difference in differences:
        rows.setdefault(difference.block.partition(".")[0], []).append(difference)
    width = max(len("block"), *map(len, rows))
    lines = [f"{'block':<{width}}  compared  {'shape':<18}  {'absolute':>8}  {'relative':>8}"]
    for name, blocks in rows.items():
        worst = max(blocks, key=lambda of: (math.isnan(of.relative), of.relative))
        shape = " x ".join(map(str, worst.shape))
        mark = "" if worst.within_tolerance else "  over the tolerance"
        lines.append(
            f"{name:<{width}}  {len(blocks):>8}  {shape:<18}  {worst.absolute:>8.1e}  {worst.relative:>8.1e}{mark}"
        )
    return "\n".join(lines)


def first_difference(differences: Sequence[Difference]) -> str:
    """Name the first block that is not proven, and how many more there are."""
    first, *others = differences
    more = f" ({len(others)} more blocks differ)" if others else ""
    detail = first.detail or f"differs by {first.relative:.1e}"
    return f"the first block that differs is {first.block}: {detail}{more}"
