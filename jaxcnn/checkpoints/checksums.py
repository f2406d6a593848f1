"""A checksum for every array: a damaged file may well be one that can be read."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(path): zlib.crc32(np.ascontiguousarray(leaf)) for path, leaf in leaves}


def verify(written: Mapping[str, int], tree: Any) -> None:
    """See that the arrays that were read are those that were written.

    Raises:
        ValueError: some are not.
    """
    wrong = [path for path, checksum in checksums(tree).items() if written.get(path) != checksum]
    if wrong:
        raise ValueError(f"{len(wrong)} arrays differ from what was written, the first is {wrong[0]}")
