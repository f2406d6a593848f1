"""Max-pooling whose gradient is fast on a CPU: XLA's own, a search through every window, is several times slower."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.cpu.switch import is_xla_only


def max_pool(
    x: Float[Array, "batch height width channel"], size: int
) -> Float[Array, "batch out_height out_width channel"]:
    """Max-pool with a square window that steps by its own size; a rest at the border is dropped, as in PyTorch.

    The gradient goes to the first of the largest pixels of a window, in row-major order. After a ReLU ties are common,
    and this is what XLA and PyTorch do with them. Values and gradients are XLA's, bit by bit. It can be differentiated
    in reverse mode only, as everything with a custom VJP.
    """
    return _xla_max_pool(x, size) if is_xla_only() else _max_pool(x, size)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, size: int) -> Array:
    return _xla_max_pool(x, size)


def _xla_max_pool(x: Array, size: int) -> Array:
    window = (1, size, size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def _max_pool_forward(x: Array, size: int) -> tuple[Array, Array]:
    return _xla_max_pool(x, size), x


def _max_pool_backward(size: int, x: Array, dy: Array) -> tuple[Array]:
    def by_xla(x: Array, dy: Array) -> Array:
        return jax.vjp(lambda x: _xla_max_pool(x, size), x)[1](dy)[0]

    return (lax.platform_dependent(x, dy, cpu=partial(_max_pool_gradient, size=size), default=by_xla),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


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
