"""A checksum for every array: a damaged file may well be one that can be read."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array, by its name."""
    leaves = jax.tree.leaves(jax.device_get(tree))
    return {name: zlib.crc32(np.ascontiguousarray(leaf)) for name, leaf in zip(leaf_names(tree), leaves, strict=True)}


def leaf_names(tree: Any) -> list[str]:
    """Where each leaf is, in Python's notation."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def verify(written: Mapping[str, int], tree: Any) -> None:
    """See that the arrays that were read are those that were written.

    Raises:
        ValueError: some are not.
    """
    wrong = [path for path, checksum in checksums(tree).items() if written.get(path) != checksum]
    if wrong:
        raise ValueError(f"{len(wrong)} arrays differ from what was written, the first is {wrong[0]}")
