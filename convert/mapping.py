"""Map the entries of a state_dict to the leaves of a Flax tree by a table of patterns, strictly.

Every number of every entry is used exactly once or left out with a reason, every leaf is filled exactly once, and it
fits. So a table works both ways.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int, Shaped

from convert.transforms import unchanged
from jaxcnn.errors import UserError

Transform = Callable[[Shaped[np.ndarray, "*torch"]], Shaped[np.ndarray, "*flax"]]
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Entries that become leaves.

    Attributes:
        pattern: regular expression for the whole key.
        path: of the leaf, such as ``params/conv/kernel``; may refer to the pattern's groups.
        transform: of the array; several rules may take a part of an entry each.
    """

    pattern: str
    path: str
    transform: Transform = unchanged


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Entries that have no leaf, and why; a checkpoint may lack them."""

    pattern: str
    reason: str


Table = Sequence[Rule | LeftOut]

# Every table has this line: PyTorch counts batches since 0.4.1, older checkpoints have no counter.
COUNTER = LeftOut(r"(.*\.)?num_batches_tracked", "a counter that only BatchNorm with momentum=None uses")


class TableError(UserError):
    """A table doesn't fit its networks."""


@dataclasses.dataclass(frozen=True)
class Move:
    """The numbers of an entry that become a leaf: where in the entry, read row by row, each number of the leaf is."""

    key: str
    path: str
    places: Int[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a table says of one network.

    Attributes:
        layout: shape of each entry.
        expected: shape and type of each leaf.
        moves: one for each leaf.
        left_out: the reason for each entry that becomes none.
        repeated: of those, the entries that are the same parameter as another one, and which.
    """

    layout: Mapping[str, tuple[int, ...]]
    expected: Mapping[str, Any]
    moves: tuple[Move, ...]
    left_out: Mapping[str, str]
    repeated: Mapping[str, str]

    @property
    def paths(self) -> dict[str, str]:
        """Return the leaf that each entry becomes; several are listed with commas."""
        leaves: dict[str, list[str]] = {}
        for move in self.moves:
            leaves.setdefault(move.key, []).append(move.path)
        return {key: ", ".join(paths) for key, paths in leaves.items()}

    def to_flax(self, arrays: Arrays) -> dict[str, Any]:
        """Make the collections, such as `params` and `batch_stats`, from the entries.

        Raises:
            TableError: an entry's type is not that of its leaf.
        """
        for move in self.moves:
            if (found := arrays[move.key].dtype) != (needed := self.expected[move.path].dtype):
                raise TableError(f"{move.key}: is {found}, but {move.path} is {needed}")
        leaves = {move.path: arrays[move.key].reshape(-1)[move.places] for move in self.moves}
        return unflatten_dict(leaves, sep="/")

    def to_torch(self, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Make the entries from the collections, except those that are left out.

        Raises:
            TableError: an array is of another shape than the table's leaf.
        """
        leaves = flatten_dict(variables, sep="/")
        arrays: dict[str, np.ndarray] = {}
        for move in self.moves:
            leaf = np.asarray(leaves[move.path])
            if leaf.shape != move.places.shape:
                raise TableError(
                    f"{move.path}: has the shape {leaf.shape}, but {move.key} fills {move.places.shape}; no PyTorch"
                    " network of these sizes is known"
                )
            entry = arrays.setdefault(move.key, np.empty(self.layout[move.key], leaf.dtype))
            entry.reshape(-1)[move.places] = leaf
        return arrays | {key: arrays[first] for key, first in self.repeated.items() if first in arrays}


def plan(
    table: Table,
    layout: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, Any],
    shared: Mapping[str, str] | None = None,
) -> Plan:
    """Apply the table to the names and shapes of both sides.

    Args:
        layout: shapes of the state_dict.
        expected: the tree with the shapes and types that the Flax model has, from `jax.eval_shape`.
        shared: entries that are the same parameter as an earlier one; they need no line of their own.

    Raises:
        TableError: an entry has no line, or its numbers are not used once each; two become the same leaf; a leaf is
            left without one or isn't expected; a shape is wrong. The message lists all of it.
    """
    leaves = flatten_dict(expected, sep="/")
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    moves: dict[str, Move] = {}
    left_out: dict[str, str] = {}
    repeated: dict[str, str] = {}
    problems: list[str] = []
    for key, shape in layout.items():
        lines = [(line, match) for line in (*table, COUNTER) if (match := re.fullmatch(line.pattern, key))]
        reasons = [line.reason for line, _ in lines if isinstance(line, LeftOut)]
        rules = [(line, match) for line, match in lines if isinstance(line, Rule)]
        if reasons and not rules:
            left_out[key] = reasons[0]
        elif not lines and key in (shared or {}):
            repeated[key] = (shared or {})[key]
            left_out[key] = f"the same parameter as {repeated[key]}"
        elif reasons or not rules:
            problems.append(f"{key}: {len(lines)} lines of the table match, expected one")
        else:
            found = [_move(key, shape, rule, match) for rule, match in rules]
            problems += _problems_of_entry(key, shape, found, shapes, moves)
            moves |= {move.path: move for move in found if isinstance(move, Move)}
    problems += [f"{path}: no entry becomes this leaf" for path in shapes if path not in moves]
    if problems:
        raise TableError(f"the table doesn't fit: {'; '.join(problems)}")
    return Plan(layout, leaves, tuple(moves.values()), left_out, repeated)


def left_out_keys(table: Table, keys: Iterable[str]) -> set[str]:
    """The entries that only lines match which leave them out."""
    of = {key: [line for line in (*table, COUNTER) if re.fullmatch(line.pattern, key)] for key in keys}
    return {key for key, lines in of.items() if lines and all(isinstance(line, LeftOut) for line in lines)}


def _move(key: str, shape: tuple[int, ...], rule: Rule, match: re.Match[str]) -> Move | str:
    """What a rule does with an entry, or what is wrong with that."""
    places = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    try:
        return Move(key, match.expand(rule.path), rule.transform(places))
    except (ValueError, IndexError, TypeError, re.error) as error:
        return f"{key}: {' '.join(str(error).split())[:200]}"


def _problems_of_entry(
    key: str,
    shape: tuple[int, ...],
    found: Sequence[Move | str],
    shapes: Mapping[str, tuple[int, ...]],
    moves: Mapping[str, Move],
) -> list[str]:
    if failed := [move for move in found if isinstance(move, str)]:
        return failed
    whole = [move for move in found if isinstance(move, Move)]
    used = np.bincount(np.concatenate([move.places.ravel() for move in whole]), minlength=int(np.prod(shape)))
    if len({move.path for move in whole}) < len(whole) or not (used == 1).all():
        lines = "1 line of the table matches" if len(whole) == 1 else f"{len(whole)} lines of the table match"
        return [f"{key}: {lines}, expected one that takes each number once, or its parts"]
    problems = []
    for move in whole:
        if move.path in moves:
            problems.append(f"{key}: becomes {move.path}, as another entry does")
        elif move.path not in shapes:
            problems.append(f"{key}: becomes {move.path}, which the model doesn't have")
        elif move.places.shape != shapes[move.path]:
            problems.append(f"{key}: becomes {move.places.shape}, but {move.path} is {shapes[move.path]}")
    return problems
