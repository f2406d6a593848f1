"""From the entries of a state_dict to the leaves of a Flax tree, by a table of patterns that leaves nothing to chance.

Every entry is matched by exactly one line of the table, every leaf gets exactly one entry, and it fits.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Shaped

Transform = Callable[[Shaped[np.ndarray, "*torch"]], Shaped[np.ndarray, "*flax"]]


def unchanged(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Vectors need no change."""
    return array


@dataclasses.dataclass(frozen=True)
class Rule:
    """Entries that become leaves.

    Attributes:
        pattern: regular expression for the whole key.
        path: of the leaf, such as ``params/conv/kernel``; may refer to the pattern's groups.
        transform: of the array.
    """

    pattern: str
    path: str
    transform: Transform = unchanged


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Entries that have no leaf, and why."""

    pattern: str
    reason: str


Table = Sequence[Rule | LeftOut]


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A filled tree, and where each entry of the state_dict went.

    Attributes:
        variables: the collections, `params` and `batch_stats`.
        paths: of the leaf that each key became.
        left_out: the reason for each key that became none.
    """

    variables: dict[str, Any]
    paths: dict[str, str]
    left_out: dict[str, str]


def map_arrays(table: Table, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> Mapped:
    """Apply the table.

    Args:
        table: of one network.
        arrays: the state_dict.
        expected: the tree with the shapes and types that the Flax model has, from `jax.eval_shape`.

    Raises:
        ValueError: an entry has no line or more than one, two become the same leaf, a leaf is left without one or
            isn't expected, or a shape or type is wrong. The message lists all of it.
    """
    expected_leaves = flatten_dict(expected, sep="/")
    leaves: dict[str, np.ndarray] = {}
    paths: dict[str, str] = {}
    left_out: dict[str, str] = {}
    problems = []
    for key, array in arrays.items():
        matches = [(line, match) for line in table if (match := re.fullmatch(line.pattern, key))]
        if len(matches) != 1:
            problems.append(f"{key}: {len(matches)} lines of the table match, expected one")
            continue
        ((line, match),) = matches
        if isinstance(line, LeftOut):
            left_out[key] = line.reason
            continue
        path = match.expand(line.path)
        if path in leaves:
            problems.append(f"{key}: becomes {path}, as another entry does")
            continue
        leaves[path] = line.transform(array)
        paths[key] = path
        problems += _misfits(key, path, leaves[path], expected_leaves)
    problems += [f"{path}: no entry becomes this leaf" for path in expected_leaves if path not in leaves]
    if problems:
        raise ValueError(f"the table doesn't fit: {'; '.join(problems)}")
    return Mapped(unflatten_dict(leaves, sep="/"), paths, left_out)


def _misfits(key: str, path: str, leaf: np.ndarray, expected: Mapping[str, Any]) -> list[str]:
    if path not in expected:
        return [f"{key}: becomes {path}, which the model doesn't have"]
    if (leaf.shape, leaf.dtype) != (expected[path].shape, expected[path].dtype):
        needed = f"{expected[path].dtype}{expected[path].shape}"
        return [f"{key}: becomes {leaf.dtype}{leaf.shape}, but {path} is {needed}"]
    return []
