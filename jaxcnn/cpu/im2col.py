"""The gradient of a convolution by its kernel, as a product with the matrix of all patches (im2col)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxcnn.cpu.geometry import Images, Kernel, Outputs, Pads, kernel_size


def kernel_gradient(x: Images, dy: Outputs, pads: Pads) -> Kernel:
    """The transposed matrix of all patches, times the output's gradient: one matrix product an image.

    One image at a time keeps the patches in the cache, and their memory at that of a single image. The sum over the
    pixels of the batch is added up by the matrix product and then image by image; against XLA's own it differs by
    float32 rounding (relative to the largest entry, at most 2e-5 is seen).
    """
    (height, width), out = dy.shape[1:3], dy.shape[3]
    rows, columns = kernel_size(x.shape, dy.shape, pads)

    def add_image(total: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = image
        padded = jnp.pad(x, (*pads, (0, 0)))
        shifted = [padded[i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
        patches = jnp.concatenate(shifted, axis=-1).reshape(height * width, -1)
        return total + patches.T @ dy.reshape(height * width, out), None

    zero = lax.full_like(dy, 0, shape=(rows * columns * x.shape[-1], out))
    total, _ = lax.scan(add_image, zero, (x, dy))
    return total.reshape(rows, columns, -1, out)
