"""Convolution and max-pooling with gradients that are fast on a CPU.

The values are XLA's own. XLA's CPU backend is slow at two gradients, and here they are computed otherwise, on the CPU
only (`jax.lax.platform_dependent`): that of a convolution by its kernel, and that of a max-pool. Both functions
can be differentiated in reverse mode only, as everything with a custom VJP.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

NHWC = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], ...]


def conv_general_dilated(
    lhs: Float[Array, "batch height width in"],
    rhs: Float[Array, "kernel_height kernel_width in_per_group out"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "batch out_height out_width out"]:
    """`jax.lax.conv_general_dilated` as `flax.linen.Conv` calls it.

    The kernel's gradient is a sum of as many products as there are pixels in the batch, added up by the matmul and
    then image by image; against XLA's own it differs by float32 rounding (relative to the largest entry, at most
    2e-5 is seen on the SimpleCNN's layers).
    """
    dilated = any(step != 1 for name in ("lhs_dilation", "rhs_dilation") for step in options.get(name) or ())
    # XLA is fast enough at the gradients of strided convolutions, which have few output pixels.
    if dilated or any(step != 1 for step in window_strides) or options.get("feature_group_count", 1) != 1:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    return _conv(lhs, rhs, tuple((low, high) for low, high in padding), options.get("precision"))


def _lax_conv(x: Array, kernel: Array, pads: Pads, precision: Any) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=NHWC, precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, pads: Pads, precision: Any) -> Array:
    return _lax_conv(x, kernel, pads, precision)


def _conv_forward(x: Array, kernel: Array, pads: Pads, precision: Any) -> tuple[Array, tuple[Array, Array]]:
    return _lax_conv(x, kernel, pads, precision), (x, kernel)


def _conv_backward(pads: Pads, precision: Any, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    _, pull_x = jax.vjp(lambda x: _lax_conv(x, kernel, pads, precision), x)
    _, pull_kernel = jax.vjp(lambda kernel: _lax_conv(x, kernel, pads, precision), kernel)

    def by_patches(x: Array, dy: Array) -> Array:
        return _kernel_gradient(jnp.pad(x, ((0, 0), *pads, (0, 0))), dy, kernel.shape, precision)

    (dx,) = pull_x(dy)
    return dx, lax.platform_dependent(x, dy, cpu=by_patches, default=lambda _, dy: pull_kernel(dy)[0])


_conv.defvjp(_conv_forward, _conv_backward)


def _kernel_gradient(
    x: Float[Array, "batch padded_height padded_width in"],
    dy: Float[Array, "batch height width out"],
    kernel_shape: tuple[int, ...],
    precision: Any,
) -> Float[Array, "kernel_height kernel_width in out"]:
    """The transposed matrix of all patches, times the output's gradient: one matmul an image (im2col).

    One image at a time keeps the patches in the cache, and their memory at that of a single image.
    """
    kernel_height, kernel_width, _, out = kernel_shape
    height, width = dy.shape[1:3]

    def add_image(total: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = image
        shifted = [x[i : i + height, j : j + width] for i in range(kernel_height) for j in range(kernel_width)]
        patches = jnp.concatenate(shifted, axis=-1).reshape(height * width, -1)
        product = jnp.dot(patches.T, dy.reshape(height * width, out), precision=precision)
        return total + product, None

    zero = jnp.zeros((kernel_height * kernel_width * x.shape[-1], out), dy.dtype)
    total, _ = lax.scan(add_image, zero, (x, dy))
    return total.reshape(kernel_shape)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(
    x: Float[Array, "batch height width channel"], size: int
) -> Float[Array, "batch out_height out_width channel"]:
    """Max-pool with a square window that steps by its own size; a rest at the border is dropped, as in PyTorch.

    The gradient goes to the first of the largest pixels of a window, in row-major order. After a ReLU ties are common,
    and this is what XLA and PyTorch do with them.
    """
    return _lax_max_pool(x, size)


def _lax_max_pool(x: Array, size: int) -> Array:
    window = (1, size, size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def _max_pool_forward(x: Array, size: int) -> tuple[Array, Array]:
    return _lax_max_pool(x, size), x


def _max_pool_backward(size: int, x: Array, dy: Array) -> tuple[Array]:
    def by_xla(x: Array, dy: Array) -> Array:
        return jax.vjp(lambda x: _lax_max_pool(x, size), x)[1](dy)[0]

    return (lax.platform_dependent(x, dy, cpu=partial(_max_pool_gradient, size=size), default=by_xla),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _max_pool_gradient(
    x: Float[Array, "batch height width channel"], dy: Float[Array, "batch rows columns channel"], *, size: int
) -> Float[Array, "batch height width channel"]:
    """Where a pixel is the first of the largest of its window, the window's gradient; elsewhere 0."""
    batch, rows, columns, channels = dy.shape
    covered = x[:, : rows * size, : columns * size]
    split = covered.reshape(batch, rows, size, columns, size, channels)
    windows = split.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, size * size, channels)
    first_largest = jnp.argmax(windows, axis=3, keepdims=True)
    chosen = jnp.arange(size * size)[:, None] == first_largest
    dx = jnp.where(chosen, dy[:, :, :, None], jnp.zeros_like(windows))
    dx = dx.reshape(batch, rows, columns, size, size, channels).transpose(0, 1, 3, 2, 4, 5).reshape(covered.shape)
    return jnp.pad(dx, [(0, whole - part) for whole, part in zip(x.shape, covered.shape, strict=True)])
