"""The input and output of the pipeline: examples, each process's share of them, and batches."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import flax.struct
import jax
import numpy as np
from jaxtyping import Int32, Shaped, UInt8

from jaxcnn.data.dataset import Split


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples that a model is trained or evaluated on.

    Attributes:
        inputs: one or several views of the examples: images as bytes, or features that were computed from them.
        labels: one for each example: its class, or the mask with the classes of its pixels.
    """

    inputs: tuple[Shaped[np.ndarray, "n ..."], ...]
    labels: Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n height width"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of every batch that one of several processes reads: its `index`-th part of `count` equal ones."""

    index: int = 0
    count: int = 1

    def of(self, batch_size: int) -> slice:
        """Its places in a batch.

        Raises:
            ValueError: the batch can't be divided so.
        """
        if batch_size % self.count:
            raise ValueError(f"a batch of {batch_size} can't be shared by {self.count} processes")
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


WHOLE = Shard()


@flax.struct.dataclass
class Batch:
    """The input of a step.

    Attributes:
        inputs: (batch, ...), or in evaluation (batch * views, ...), the views of an example one after the other; images
            travel to the device as uint8 (batch, height, width, channel), a quarter of their size as floats.
        labels: int32 (batch,), or masks, uint8 (batch, height, width).
        mask: bool (batch,), false for what only fills up the batch; None in training, where every image counts.
    """

    inputs: Any
    labels: Any
    mask: Any


def fill_up(images: Shaped[np.ndarray, "n ..."], size: int) -> Shaped[np.ndarray, "size ..."]:
    """Add zeros behind the images of a batch, so that all batches are of one size and one program serves them."""
    return np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), images.dtype)])


# For each function, as long as it is in use, its programs. JAX keeps them too, but gives a new object for one at each
# `compile`, whose first call takes 60 ms longer.
_PROGRAMS: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def in_batches(function: jax.stages.Wrapped | partial[Any], images: Shaped[np.ndarray, "n ..."], size: int) -> Any:
    """Call a function of a batch on many images, by batches of this size; it gives an array, or a tree of arrays.

    On a CPU the two halves of a batch are computed side by side, since a program by itself leaves a core idle for a
    third of the time.

    Args:
        function: compiled by `jax.jit`, or a `functools.partial` of such a function.
        images: the last batch is filled up with zeros.
        size: the most images at a time.
    """
    side_by_side = 2 if jax.default_backend() == "cpu" else 1
    size = -(-size // side_by_side)
    jitted: Any
    jitted, known = (function.func, function.args) if isinstance(function, partial) else (function, ())
    # Compiled in this thread: what `jax.default_matmul_precision` and `xla_only` ask for doesn't hold in others.
    batch = jax.ShapeDtypeStruct((size, *images.shape[1:]), images.dtype)
    asked = (batch.shape, batch.dtype, jax.config.jax_default_matmul_precision)  # type: ignore[attr-defined]
    programs = _PROGRAMS.setdefault(function, {})
    if asked not in programs:
        programs[asked] = jitted.lower(*known, batch).compile()

    def call(start: int) -> Any:
        batch = images[start : start + size]
        return jax.tree.map(
            lambda array: np.asarray(array)[: len(batch)], programs[asked](*known, fill_up(batch, size))
        )

    with ThreadPoolExecutor(side_by_side) as threads:
        found = list(threads.map(call, range(0, max(len(images), 1), size)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def images_of(split: Split) -> Examples:
    """Return the images of a split as examples with a single view."""
    return Examples((split.images,), split.labels)
