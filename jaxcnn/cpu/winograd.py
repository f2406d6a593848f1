"""Winograd convolution: fewer multiplications than there are pairs of a kernel's and an image's entries.

F(m, r) gives m neighbouring outputs of a filter with r taps from m + r - 1 inputs by as many products, instead of m r
(Winograd, "Arithmetic Complexity of Computations", 1980; for neural networks Lavin & Gray, 2016, arXiv 1509.09308):

    y = A^T [(G g) * (B^T d)]

Two-dimensional convolution nests it in itself. With m = 4, a tile of 4x4 outputs takes 36 products for a 3x3 kernel
instead of 144, and 64 for a 5x5 kernel instead of 400. Summed over channels, the products of one position in the tiles
are a matrix product: (tiles, in) by (in, out).

What limits it is memory: transformed, the images are 2.25 (3x3) or 4 (5x5) times as large. So the work goes by a few
images at a time and, within them, by the rows of the tiles, and what lies between the transforms stays in the cache.

Rounding: the transforms add and subtract numbers that are larger than the result. Relative to the largest entry, 2e-5
is seen at most in an output and 3e-5 in a gradient (5x5, float32, normal noise), where XLA's own have 2e-6.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float64

from jaxcnn.cpu.geometry import Images, Kernel, Outputs, Pads, Size, kernel_size, output_size, transposed

# Rows of a matrix product: with fewer, the transform of the kernel costs more than the products it saves.
MIN_TILES = 64
# Enough rows for a matrix product to be fast, and few enough for the cache.
TILES_AT_ONCE = 512
# Rows of the tiles in the body of the loop over them: XLA takes seconds to compile copies for all of them, and of one
# alone it runs little at a time.
ROWS_AT_ONCE = 2
# Where the polynomials are evaluated; the last point of each F is infinity. Small numbers and their inverses lose the
# fewest digits (Barabasz et al., 2020, arXiv 1803.10986).
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


class Transforms(NamedTuple):
    """The matrices of F(outputs, taps), of n = outputs + taps - 1 points.

    Attributes:
        output: A^T.
        kernel: G.
        input: B^T.
    """

    output: Float64[np.ndarray, "outputs n"]
    kernel: Float64[np.ndarray, "n taps"]
    input: Float64[np.ndarray, "n n"]


@functools.cache
def transforms(outputs: int, taps: int) -> Transforms:
    """Toom and Cook's construction: polynomials are multiplied by multiplying their values at the points.

    With p_j the points, row j of B^T holds the coefficients of prod_{k != j} (x - p_k), row j of G the powers of p_j
    over the value of that product at p_j, and column j of A^T the powers of p_j.

    Raises:
        ValueError: there are not enough points.
    """
    n = outputs + taps - 1
    if not 3 <= n <= len(POINTS) + 1:
        raise ValueError(f"F({outputs}, {taps}) needs {n} points, must be 3 to {len(POINTS) + 1}")
    points = np.array(POINTS[: n - 1])
    output, kernel, inputs = np.zeros((outputs, n)), np.zeros((n, taps)), np.zeros((n, n))
    for j, point in enumerate(points):
        others = np.delete(points, j)
        output[:, j] = point ** np.arange(outputs)
        kernel[j] = point ** np.arange(taps) / np.prod(point - others)
        inputs[j, :-1] = np.poly(others)[::-1]
    output[-1, -1] = kernel[-1, -1] = 1
    inputs[-1] = np.poly(points)[::-1]
    return Transforms(output, kernel, inputs)


def tile_size(batch: int, height: int, width: int) -> int | None:
    """Side of the tiles for so many output pixels: the larger, the fewer products; None if even small ones are few."""
    return next((side for side in (4, 2) if batch * -(-height // side) * -(-width // side) >= MIN_TILES), None)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Squares that cover the output of a convolution; those at the lower and right border may reach beyond it.

    Attributes:
        side: of a tile, in pixels.
        down: tiles in a column.
        across: tiles in a row.
    """

    side: int
    down: int
    across: int


def conv(x: Images, kernel: Kernel, pads: Pads) -> Outputs:
    """`lax.conv_general_dilated` with stride 1."""
    taps = (kernel.shape[0], kernel.shape[1])
    height, width = output_size(x.shape, taps, pads)
    tiling = _tiling(len(x), height, width)
    rows, columns = (transforms(tiling.side, size) for size in taps)
    factors = _transform_kernel(kernel, rows.kernel, columns.kernel)

    chunks = _chunks(x, tiling)
    images, row_weights = chunks.shape[1], jnp.asarray(rows.input, x.dtype)

    def convolve(sums: Array, x: Array) -> tuple[Array, Array]:
        padded = _pad_input(x, tiling, taps, pads)

        def add_row(row: Array, sums: Array) -> Array:
            products = _transform(padded, row_weights[row], columns.input, tiling) @ factors[row]
            products = products.reshape(-1, images, tiling.down, tiling.across, kernel.shape[3])
            return lax.dynamic_update_index_in_dim(sums, _combine(columns.output, products, axis=3), row, 0)

        sums = lax.fori_loop(0, len(rows.input), add_row, sums, unroll=ROWS_AT_ONCE)
        y = _combine(rows.output, sums, axis=2)
        return sums, y.reshape(images, tiling.down * tiling.side, tiling.across * tiling.side, -1)[:, :height, :width]

    # Room for the rows of all chunks, one after the other: of its own, each would be filled with zeros first.
    room = (len(rows.input), images, tiling.down, tiling.across, tiling.side, kernel.shape[3])
    _, y = lax.scan(convolve, lax.full_like(x, 0, shape=room), chunks)
    return y.reshape(-1, *y.shape[2:])[: len(x)]


def input_gradient(kernel: Kernel, dy: Outputs, pads: Pads) -> Images:
    """The gradient of `conv` by x."""
    return conv(dy, *transposed(kernel, pads))


def kernel_gradient(x: Images, dy: Outputs, pads: Pads) -> Kernel:
    """The gradient of `conv` by the kernel: dy goes back through A, the kernel through G, and B^T d is what it was."""
    taps = kernel_size(x.shape, dy.shape, pads)
    tiling = _tiling(*dy.shape[:3])
    rows, columns = (transforms(tiling.side, size) for size in taps)
    in_weights, out_weights = (jnp.asarray(matrix, x.dtype) for matrix in (rows.input, rows.output.T))

    def add(total: Array, images: tuple[Array, Array]) -> tuple[Array, None]:
        padded_x = _pad_input(images[0], tiling, taps, pads)
        padded_dy = _pad(images[1], (0, 0), (tiling.down * tiling.side, tiling.across * tiling.side))

        def add_row(row: Array, total: Array) -> Array:
            product = jnp.einsum(
                "ntc,ntf->ncf",
                _transform(padded_x, in_weights[row], columns.input, tiling),
                _transform(padded_dy, out_weights[row], columns.output.T, tiling),
            )
            return lax.dynamic_update_index_in_dim(total, total[row] + product, row, 0)

        return lax.fori_loop(0, len(rows.input), add_row, total), None

    zero = lax.full_like(dy, 0, shape=(len(rows.input), len(columns.input), x.shape[3], dy.shape[3]))
    total, _ = lax.scan(add, zero, (_chunks(x, tiling), _chunks(dy, tiling)))
    return _transform_kernel(total, rows.kernel.T, columns.kernel.T)


def _tiling(batch: int, height: int, width: int) -> Tiling:
    side = tile_size(batch, height, width) or 2
    return Tiling(side, -(-height // side), -(-width // side))


def _chunks(x: Float[Array, "batch height width channel"], tiling: Tiling) -> Float[Array, "chunk images _ _ channel"]:
    """The batch in equal parts of about TILES_AT_ONCE tiles, filled up with images of zeros."""
    most = max(1, TILES_AT_ONCE // (tiling.down * tiling.across))
    chunks = -(-len(x) // most)
    images = -(-len(x) // chunks)
    if missing := chunks * images - len(x):
        x = jnp.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return x.reshape(chunks, images, *x.shape[1:])


def _pad_input(x: Array, tiling: Tiling, taps: Size, pads: Pads) -> Array:
    """All pixels that the tiles of the output depend on."""
    (above, _), (left, _) = pads
    height, width = tiling.down * tiling.side + taps[0] - 1, tiling.across * tiling.side + taps[1] - 1
    return _pad(x, (above, left), (height, width))


def _pad(x: Array, before: Size, size: Size) -> Array:
    """Zeros above, on the left and, until it has that size, below and on the right."""
    (above, left), (height, width) = before, size
    below, right = height - above - x.shape[1], width - left - x.shape[2]
    return jnp.pad(x, ((0, 0), (above, below), (left, right), (0, 0)))


def _transform(
    x: Float[Array, "images height width channel"],
    row: Float[Array, " n_rows"],
    columns: Float64[np.ndarray, "n n_columns"],
    tiling: Tiling,
) -> Float[Array, "n tiles channel"]:
    """One row of every transformed tile. Tiles start every `side` pixels; those that are larger overlap."""
    pixels = _every(x, 1, tiling.side, tiling.down, len(row))
    line = functools.reduce(jnp.add, (weight * part for weight, part in zip(row, pixels, strict=True)))
    pixels = _every(line, 2, tiling.side, tiling.across, columns.shape[1])
    return _combine(columns, pixels, axis=0).reshape(len(columns), -1, x.shape[3])


def _transform_kernel(
    kernel: Float[Array, "old_rows old_columns in out"],
    row_matrix: Float64[np.ndarray, "new_rows old_rows"],
    column_matrix: Float64[np.ndarray, "new_columns old_columns"],
) -> Float[Array, "new_rows new_columns in out"]:
    """The transform of a kernel, or, with the transposed matrices, of its gradient: one product for both directions."""
    rows, columns, *channels = kernel.shape
    # The barriers keep XLA from reading a transposed kernel entry by entry, and from doing this again with each row.
    flat = lax.optimization_barrier(kernel.reshape(rows * columns, -1))
    transformed = lax.optimization_barrier(jnp.asarray(np.kron(row_matrix, column_matrix), kernel.dtype) @ flat)
    return transformed.reshape(len(row_matrix), len(column_matrix), *channels)


def _every(x: Array, axis: int, step: int, count: int, starts: int) -> list[Array]:
    """For each of so many starts, `count` entries along an axis, `step` apart."""
    return [lax.slice_in_dim(x, i, i + step * (count - 1) + 1, step, axis) for i in range(starts)]


def _combine(matrix: np.ndarray, parts: Sequence[Array] | Array, axis: int) -> Array:
    """The small matrix times the vector of arrays. What it has of 0 and 1 costs no multiplication."""
    sums = [
        functools.reduce(
            jnp.add,
            (part if weight == 1 else part * float(weight) for weight, part in zip(row, parts, strict=True) if weight),
        )
        for row in matrix
    ]
    return jnp.stack(sums, axis)
