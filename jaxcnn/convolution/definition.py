"""Two-dimensional convolution: the definition in NumPy, and the same on XLA."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Real


def manual_conv2d(
    image: Real[np.ndarray | Array, "height width"], kernel: Real[np.ndarray | Array, "kernel_height kernel_width"]
) -> Float64[np.ndarray, "height width"]:
    """Convolve one image by the definition, in float64 whatever the dtypes of the arguments.

        (f * g)[x, y] = sum_{i=-kc..kc} sum_{j=-kc..kc} f(x - i, y - j) g(i, j),    kc = (k - 1) / 2

    with x the row, y the column, f zero outside the image, and g(0, 0) the centre of the kernel (a rectangular kernel
    has a kc for each axis). The kernel may be larger than the image.

    This is convolution in the mathematical sense: a single bright pixel is replaced by the kernel as it stands. The
    reference project's code differs in three ways. It correlates, f(x + i, y + j), which shows the kernel rotated by
    180 degrees and is neither commutative nor associative; it stores the result kc rows and columns away from the
    pixel it belongs to, so that features do not lie on those of the image; and it leaves a border unwritten, where the
    definition, with its zeros outside the image, has a value.

    Args:
        image: f, finite numbers of any real dtype; integers are converted, like all else, to float64.
        kernel: g, both sizes odd.

    Raises:
        ValueError: an argument is not 2-D, is complex or holds NaN or infinity, or the kernel is empty or even.
    """
    f, g = _finite_plane("image", image), _finite_plane("kernel", kernel)
    height, width = f.shape
    kr, kc = (half_size(k) for k in g.shape)
    padded = np.pad(f, ((kr, kr), (kc, kc)))

    def shifted(i: int, j: int) -> np.ndarray:
        """f(x - i, y - j) for every pixel (x, y) at once."""
        return padded[kr - i : kr - i + height, kc - j : kc - j + width]

    result = np.zeros_like(f)
    for i in range(-kr, kr + 1):
        for j in range(-kc, kc + 1):
            result += shifted(i, j) * g[kr + i, kc + j]
    return result


def conv2d(image: Real[np.ndarray | Array, "..."], kernel: Real[np.ndarray | Array, "..."]) -> Float[Array, "..."]:
    """Convolve with XLA: what `manual_conv2d` defines, on any device, under jit, vmap and grad.

    The number of dimensions decides what is convolved:

        image                           kernel                          result
        (height, width)                 (height, width)                 (height, width)
        (batch, height, width)          (height, width)                 (batch, height, width)
        (batch, height, width, in)      (height, width, in, out)        (batch, height, width, out)

    In the last case (NHWC and HWIO) each output channel is the sum of the input channels' convolutions.

    The image's dtype, float16 to float64, is that of the computation and of the result, and the kernel is converted
    to it; an integer image is converted to float32. float64 needs `jax_enable_x64`, as everywhere in JAX.

    Values are never looked at, since under jit there are none yet: NaN in, NaN out.

    Raises:
        ValueError: the dimensions fit no line of the table, the channels do not match, a kernel size is even or zero,
            or an argument is complex.
    """
    match image.ndim, kernel.ndim:
        case 2, 2:
            return conv2d(image[None], kernel)[0]
        case 3, 2:
            return conv2d(image[..., None], kernel[..., None, None])[..., 0]
        case 4, 4 if image.shape[3] == kernel.shape[2]:
            return _conv_nhwc(image, kernel)
    raise ValueError(
        "conv2d takes (H, W) or (batch, H, W) with a (H, W) kernel, or (batch, H, W, in) with (H, W, in, out); "
        f"got image {image.shape} and kernel {kernel.shape}"
    )


def _conv_nhwc(
    image: Real[np.ndarray | Array, "batch height width in"], kernel: Real[np.ndarray | Array, "kh kw in out"]
) -> Float[Array, "batch height width out"]:
    _check_real("image", image.dtype)
    _check_real("kernel", kernel.dtype)
    kr, kc = (half_size(k) for k in kernel.shape[:2])
    image = jnp.asarray(image) if jnp.issubdtype(image.dtype, jnp.floating) else jnp.asarray(image, jnp.float32)
    # lax.conv correlates, as all of deep learning does: flipping both axes makes it a convolution.
    flipped = jnp.asarray(kernel, image.dtype)[::-1, ::-1]
    return jax.lax.conv_general_dilated(
        image,
        flipped,
        window_strides=(1, 1),
        padding=((kr, kr), (kc, kc)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        # The default lets GPUs and TPUs round float32 to fewer bits.
        precision=jax.lax.Precision.HIGHEST,
    )


def half_size(k: int) -> int:
    """The kc of a kernel with k rows or columns."""
    if k < 1 or k % 2 == 0:
        raise ValueError(f"a kernel's size must be odd and positive, so that it has a centre; got {k}")
    return (k - 1) // 2


def _finite_plane(name: str, array: np.ndarray | Array) -> Float64[np.ndarray, "height width"]:
    """A checked copy in float64."""
    if array.ndim != 2:
        raise ValueError(f"{name}: 2-D array expected, got shape {array.shape}")
    _check_real(name, array.dtype)
    plane = np.asarray(array).astype(np.float64)
    if not np.isfinite(plane).all():
        x, y = np.argwhere(~np.isfinite(plane))[0]
        raise ValueError(f"{name}: finite numbers expected, got {plane[x, y]} at [{x}, {y}]")
    return plane


def _check_real(name: str, dtype: np.dtype) -> None:
    # NumPy asks the dtype itself, so that this also knows bfloat16, which is none of NumPy's own kinds.
    if not np.can_cast(dtype, np.float64):
        raise ValueError(f"{name}: real numbers of at most 64 bits expected, got dtype {dtype}")
