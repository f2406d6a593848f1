"""Sizes of a convolution with stride 1, and the convolution that is its gradient by the input."""

from jaxtyping import Array, Float

# Rows and columns of zeros: ((above, below), (left, right)).
Pads = tuple[tuple[int, int], tuple[int, int]]
Size = tuple[int, int]

Images = Float[Array, "batch height width in"]
Kernel = Float[Array, "kernel_height kernel_width in out"]
Outputs = Float[Array, "batch out_height out_width out"]


def output_size(x_shape: tuple[int, ...], kernel_size: Size, pads: Pads) -> Size:
    """Height and width of the output; 0 or less where the kernel is larger than the padded image."""
    height, width = (
        size + sum(pad) - taps + 1 for size, taps, pad in zip(x_shape[1:3], kernel_size, pads, strict=True)
    )
    return height, width


def kernel_size(x_shape: tuple[int, ...], dy_shape: tuple[int, ...], pads: Pads) -> Size:
    """Height and width of the kernel that makes an output of `dy_shape`."""
    # The formula is its own inverse.
    height, width = dy_shape[1:3]
    return output_size(x_shape, (height, width), pads)


def input_size(dy_shape: tuple[int, ...], kernel_size: Size, pads: Pads) -> Size:
    """Height and width of the input that makes an output of `dy_shape`, which is not empty."""
    height, width = (
        size + taps - 1 - sum(pad) for size, taps, pad in zip(dy_shape[1:3], kernel_size, pads, strict=True)
    )
    return height, width


def transposed(kernel: Kernel, pads: Pads) -> tuple[Float[Array, "kernel_height kernel_width out in"], Pads]:
    """The kernel and the pads that turn the output's gradient into the input's."""
    (above, below), (left, right) = pads
    height, width = kernel.shape[0] - 1, kernel.shape[1] - 1
    return kernel[::-1, ::-1].swapaxes(2, 3), ((height - above, height - below), (width - left, width - right))
