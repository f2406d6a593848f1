"""List the models of a sweep: every combination of the values in the grid, or a random selection."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.cli import replace_option
from jaxcnn.errors import UserError
from train.options import Config

Grid = Mapping[str, tuple[Any, ...]]

NOT_SWEPT = {
    **dict.fromkeys(
        ("data", "max_images", "protocol", "validation_fraction", "test_fraction", "split_seed", "empty_slices"),
        "models are compared on the same images",
    ),
    **dict.fromkeys(("folds", "fold"), "a sweep with --folds goes through all folds by itself"),
    **dict.fromkeys(("checkpoint_every", "tensorboard"), "it changes no model"),
    "model": "a sweep has one",
}
"""Options that can't be swept, each with the reason."""

_LONGEST_NAME = 150


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of a sweep: the name of its run folder, the values of the swept options, and all its options."""

    name: str
    values: Mapping[str, Any]
    config: Config


def parse_grid(config: Config, texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Parse the values of each option from FIELD=V1,V2,..., as the command line parses `--FIELD V1`.

    Of cross-validation the last option is the fold.

    Raises:
        UserError: it is no such text, or an option is unknown, given twice or not to be swept, or doesn't take a value.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        field = name.strip().replace("-", "_")
        _check_field(config, text, field)
        if field in grid:
            raise UserError(f"--grid {text}: {field} is given twice; list all its values in one --grid")
        words = [word.strip() for word in listed.split(",")]
        if not all(words):
            raise UserError(f"--grid {text}: a value is missing; write {field}=V1,V2,...")
        grid[field] = tuple(_parse(config, field, word) for word in words)
        if len(set(grid[field])) < len(words):
            raise UserError(f"--grid {text}: lists a value twice; give each value once")
    if config.training.folds is not None:
        if config.training.fold is not None:
            raise UserError(f"--fold {config.training.fold}: a sweep goes through all folds; leave it out")
        grid["fold"] = tuple(range(1, config.training.folds + 1))
    if not grid:
        raise UserError("--grid is missing: name the options that differ, such as --grid learning_rate=1e-3,1e-4")
    return grid


def _check_field(config: Config, text: str, field: str) -> None:
    known = [name for name in config.to_json() if name not in NOT_SWEPT]
    if reason := NOT_SWEPT.get(field):
        raise UserError(f"--grid {text}: {field} can't be swept, since {reason}; sweep one of {', '.join(known)}")
    if field not in known:
        raise UserError(f"--grid {text}: there is no option {field!r}; sweep one of {', '.join(known)}")


def _parse(config: Config, field: str, word: str) -> Any:
    try:
        part = config.network if hasattr(config.network, field) else config.training
        return getattr(replace_option(part, field, word), field)
    except UserError as error:
        raise UserError(f"--grid {field}={word}: {error}") from error


def make_models(config: Config, grid: Grid, random: int | None) -> tuple[Model, ...]:
    """List all combinations, the last option varying fastest; with `random`, draw that many by the configuration's
    seed.

    Raises:
        UserError: there are fewer than so many, or a combination is refused.
    """
    shape = [len(values) for values in grid.values()]
    points = math.prod(shape)
    if random is not None and not 1 <= random <= points:
        raise UserError(f"--random {random}: must be between 1 and {points}, the number of combinations in the grid")
    chosen: Sequence[int] = range(points)
    if random is not None:
        drawn = np.random.default_rng(config.training.seed).choice(points, random, replace=False)
        chosen = sorted(drawn.tolist())
    models = []
    for number, point in enumerate(chosen, start=1):
        places = np.unravel_index(point, shape)
        values = {field: grid[field][place] for field, place in zip(grid, places, strict=True)}
        try:
            combined = config.replace(**values)
        except ValueError as error:
            raise UserError(f"--grid {error}") from error
        models.append(Model(_name(number, len(chosen), values), values, combined))
    return tuple(models)


def _name(number: int, count: int, values: Mapping[str, Any]) -> str:
    """A folder name that sorts in the order of the grid and says the values as Hydra does: 03-seed=0,dropout=0.5."""
    listed = ",".join(f"{field}={value}" for field, value in values.items())
    plain = re.sub(r"[^\w.+,=-]+", "-", listed, flags=re.ASCII)[:_LONGEST_NAME]
    return f"{number:0{len(str(count))}}-{plain}"
