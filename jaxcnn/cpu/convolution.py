"""Two-dimensional convolution that takes, on a CPU, the method that is fastest for the shapes.

XLA's CPU backend multiplies matrices near the speed of the processor, but is slow at the gradients of most convolutions
and at some convolutions (docs/performance.md). Here they become matrix products. On other devices nothing changes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.cpu import im2col, matmul, winograd
from jaxcnn.cpu.geometry import Pads, input_size, kernel_size, output_size
from jaxcnn.cpu.multilinear import ELSEWHERE, multilinear
from jaxcnn.cpu.switch import is_xla_only

NHWC = ("NHWC", "HWIO", "NHWC")

Computation = Callable[[Array, Array, Pads], Array]


@dataclasses.dataclass(frozen=True)
class Method:
    """How a CPU computes a convolution with stride 1 and its two gradients; None is XLA's own way.

    Attributes:
        conv: of (x, kernel, pads).
        input_gradient: of (kernel, dy, pads).
        kernel_gradient: of (x, dy, pads).
    """

    conv: Computation | None = None
    input_gradient: Computation | None = None
    kernel_gradient: Computation | None = None


XLA = Method()
PATCHES = Method(kernel_gradient=im2col.kernel_gradient)
MATMUL = Method(matmul.conv, matmul.input_gradient, matmul.kernel_gradient)
WINOGRAD = Method(winograd.conv, winograd.input_gradient, winograd.kernel_gradient)

# With fewer channels the transforms cost more than the products they save.
MIN_WINOGRAD_CHANNELS = 16


def choose_method(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], pads: Pads) -> Method:
    """The rule; docs/performance.md has the measurements that it comes from."""
    rows, columns, *channels = kernel_shape
    height, width = output_size(x_shape, (rows, columns), pads)
    # Nothing is left of the image, or the border is cut off (`im2col` adds it with `jnp.pad`).
    if min(height, width) < 1 or min(pads[0] + pads[1]) < 0:
        return XLA
    one_product = (rows, columns) == (1, 1) or (height, width) == (1, 1)
    if one_product and pads == ((0, 0), (0, 0)):
        return MATMUL
    # The gradient by the input pads by what is left of the kernel's size, which must not be negative.
    padded_as_usual = all(0 <= pad < taps for taps, side in zip((rows, columns), pads, strict=True) for pad in side)
    enough_tiles = winograd.tile_size(x_shape[0], height, width) is not None
    if {rows, columns} <= {3, 5} and padded_as_usual and enough_tiles and min(channels) >= MIN_WINOGRAD_CHANNELS:
        return WINOGRAD
    return PATCHES


def conv_general_dilated(
    lhs: Float[Array, "..."],
    rhs: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "..."]:
    """`jax.lax.conv_general_dilated`, whose arguments and errors it has, for `flax.linen.Conv` to call.

    On a CPU, values and gradients differ from XLA's by float32 rounding: relative to the largest entry, at most 2e-5 is
    seen in a value and 3e-5 in a gradient (`winograd` gives the reason).

    Strides, dilation, groups, other layouts than NHWC and HWIO, other dtypes than float32 and a precision that is asked
    for (also by `jax.default_matmul_precision`) get XLA's own convolution.
    """
    if is_xla_only() or not _is_plain(lhs, rhs, window_strides, options):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    (above, below), (left, right) = padding
    pads = ((above, below), (left, right))
    if choose_method(lhs.shape, rhs.shape, pads) is XLA:
        return _xla_conv(lhs, rhs, pads)
    return _form("y", _varying_as(lhs, rhs), _varying_as(rhs, lhs), options=(pads,))


def _varying_as(x: Array, other: Array) -> Array:
    """The same x, which inside shard_map counts as different on each device if the other does.

    JAX's own operations do that to their arguments, and so the gradients of a kernel that the devices share are added
    up. A factor of 1 does it too, and is gone when XLA has compiled.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return x
    return x * lax.full_like(other, 1, shape=x.shape)


def _is_plain(x: Array, kernel: Array, strides: Sequence[int], options: Mapping[str, Any]) -> bool:
    """Whether it is a two-dimensional convolution in float32 that has stride 1 and no options, and no mistake."""
    if x.ndim != 4 or not x.dtype == kernel.dtype == jnp.float32 or any(step != 1 for step in strides):
        return False
    options = {name: value for name, value in options.items() if value is not None}
    numbers = options.pop("dimension_numbers", None)
    dilations = (*options.pop("lhs_dilation", ()), *options.pop("rhs_dilation", ()))
    groups = (options.pop("feature_group_count", 1), options.pop("batch_group_count", 1))
    layout = partial(lax.conv_dimension_numbers, x.shape, kernel.shape)
    return (
        not options
        and jax.config.jax_default_matmul_precision is None  # type: ignore[attr-defined]
        and all(number == 1 for number in (*dilations, *groups))
        and layout(numbers) == layout(NHWC)
        # A reshape would hide that the channels don't fit.
        and x.shape[3] == kernel.shape[2]
    )


def _xla_conv(x: Array, kernel: Array, pads: Pads) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=NHWC)


def _xla_input_gradient(kernel: Array, dy: Array, pads: Pads) -> Array:
    x = jax.typeof(dy).update(shape=_input_shape(kernel, dy, pads))
    (dx,) = jax.linear_transpose(lambda x: _xla_conv(*_wide_border_apart(x, kernel, pads)), x)(dy)
    return dx


def _wide_border_apart(x: Array, kernel: Array, pads: Pads) -> tuple[Array, Array, Pads]:
    """The same convolution, of an image that has its border already where that is wider than the kernel reaches.

    The gradient would be a convolution with negative padding, for which jaxlib 0.10.2 reads memory outside the image on
    a CPU; that of a border of its own is a slice.
    """
    if all(pad < taps for taps, side in zip(kernel.shape, pads, strict=False) for pad in side):
        return x, kernel, pads
    (above, below), (left, right) = [[max(pad, 0) for pad in side] for side in pads]
    cut_off = [[min(pad, 0) for pad in side] for side in pads]
    bordered = jnp.pad(x, ((0, 0), (above, below), (left, right), (0, 0)))
    return bordered, kernel, ((cut_off[0][0], cut_off[0][1]), (cut_off[1][0], cut_off[1][1]))


def _xla_kernel_gradient(x: Array, dy: Array, pads: Pads) -> Array:
    kernel = jax.typeof(dy).update(shape=_kernel_shape(x, dy, pads))
    (dkernel,) = jax.linear_transpose(lambda kernel: _xla_conv(x, kernel, pads), kernel)(dy)
    return dkernel


def _cpu_conv(x: Array, kernel: Array, pads: Pads) -> Array:
    method = choose_method(x.shape, kernel.shape, pads)
    return (method.conv or _xla_conv)(x, kernel, pads)


def _cpu_input_gradient(kernel: Array, dy: Array, pads: Pads) -> Array:
    method = choose_method(_input_shape(kernel, dy, pads), kernel.shape, pads)
    return (method.input_gradient or _xla_input_gradient)(kernel, dy, pads)


def _cpu_kernel_gradient(x: Array, dy: Array, pads: Pads) -> Array:
    method = choose_method(x.shape, _kernel_shape(x, dy, pads), pads)
    return (method.kernel_gradient or _xla_kernel_gradient)(x, dy, pads)


def _input_shape(kernel: Array, dy: Array, pads: Pads) -> tuple[int, ...]:
    return len(dy), *input_size(dy.shape, (kernel.shape[0], kernel.shape[1]), pads), kernel.shape[2]


def _kernel_shape(x: Array, dy: Array, pads: Pads) -> tuple[int, ...]:
    return *kernel_size(x.shape, dy.shape, pads), x.shape[3], dy.shape[3]


# The sum of all entries of y * conv(x, kernel), whose gradient by y is the convolution.
_form = multilinear(
    "conv_with_cpu_methods",
    {
        "x": {"cpu": _cpu_input_gradient, ELSEWHERE: _xla_input_gradient},
        "kernel": {"cpu": _cpu_kernel_gradient, ELSEWHERE: _xla_kernel_gradient},
        "y": {"cpu": _cpu_conv, ELSEWHERE: _xla_conv},
    },
)
