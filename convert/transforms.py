"""Reorder an entry's numbers from PyTorch's order to Flax's, without changing any.

A table is applied to the places of the numbers, not to the numbers themselves, so any function that transposes,
reshapes, flips or takes a part will do, and the way back needs no function of its own.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped


def unchanged(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Vectors need no change."""
    return array


def conv_kernel(weight: Shaped[np.ndarray, "out in *window"]) -> Shaped[np.ndarray, "*window in out"]:
    """OIHW to HWIO, whatever the groups and the dilation.

    A transposed convolution's IOHW becomes HWOI: what `nn.ConvTranspose` has with `transpose_kernel=True`.
    """
    return np.moveaxis(weight, (0, 1), (-1, -2))


def flipped_conv_kernel(weight: Shaped[np.ndarray, "in out *window"]) -> Shaped[np.ndarray, "*window in out"]:
    """A transposed convolution's IOHW to HWIO for an `nn.ConvTranspose` without `transpose_kernel`, which flips."""
    window = tuple(range(weight.ndim - 2))
    return np.flip(np.moveaxis(weight, (0, 1), (-2, -1)), window)


def dense_kernel(weight: Shaped[np.ndarray, "out in"]) -> Shaped[np.ndarray, "in out"]:
    """PyTorch multiplies by the transpose."""
    return weight.T


def channels_last(array: Shaped[np.ndarray, "*before channel height width"]) -> Shaped[np.ndarray, "..."]:
    """A parameter that is itself an image, such as the scale of a LayerNorm over (channel, height, width)."""
    return np.moveaxis(array, -3, -1)


@dataclasses.dataclass(frozen=True)
class Flattened:
    """The kernel of a dense layer behind a flatten: PyTorch flattens (channel, height, width), Flax channels last."""

    channels: int
    height: int
    width: int

    def __call__(self, weight: Shaped[np.ndarray, "out chw"]) -> Shaped[np.ndarray, "hwc out"]:
        """From PyTorch's order to Flax's."""
        maps = weight.reshape(-1, self.channels, self.height, self.width)
        return conv_kernel(maps).reshape(-1, len(weight))


@dataclasses.dataclass(frozen=True)
class Heads:
    """A projection to the heads of an attention: Flax has an axis for them in the output."""

    heads: int

    def __call__(self, array: Shaped[np.ndarray, "out ..."]) -> Shaped[np.ndarray, "... heads channel"]:
        """(heads x channel, in) to (in, heads, channel); a bias to (heads, channel)."""
        return np.moveaxis(array.reshape(self.heads, -1, *array.shape[1:]), (0, 1), (-2, -1))


@dataclasses.dataclass(frozen=True)
class FromHeads:
    """The projection of what the heads of an attention give: Flax has an axis for them in the input."""

    heads: int

    def __call__(self, weight: Shaped[np.ndarray, "out in"]) -> Shaped[np.ndarray, "heads channel out"]:
        """(out, heads x channel) to (heads, channel, out)."""
        return weight.T.reshape(self.heads, -1, len(weight))


@dataclasses.dataclass(frozen=True)
class Part:
    """One of several projections in one entry: PyTorch stacks query, key and value (parts 0, 1 and 2 of 3)."""

    part: int
    parts: int
    then: Callable[[np.ndarray], np.ndarray]

    def __call__(self, array: Shaped[np.ndarray, "out ..."]) -> Shaped[np.ndarray, "..."]:
        """These rows, as `then` has them."""
        return self.then(np.split(array, self.parts)[self.part])
