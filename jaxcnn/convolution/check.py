"""Is conv2d on this device what the definition says? A table of differences and times."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Float64
from PIL import Image

from jaxcnn.convolution import conv2d, gaussian_kernel, horizontal_edge_kernel, manual_conv2d, sharpening_kernel
from jaxcnn.data.phantom import phantom_images
from jaxcnn.errors import UserError
from jaxcnn.models.simplecnn import SimpleCNN
from jaxcnn.tables import format_table

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Attributes:
        kernel: which kernel, or which layer of which network.
        relative: largest difference relative to the sum of |f| |g| at its pixel.
        tolerance: what `relative` may be.
        manual_ms: time of the definition, in milliseconds.
        compile_ms: time to trace and compile.
        fast_ms: time of a compiled call, the shortest of several.
    """

    kernel: str
    shape: tuple[int, ...]
    image: str
    absolute: float
    relative: float
    tolerance: float
    manual_ms: float
    compile_ms: float
    fast_ms: float

    @property
    def ok(self) -> bool:
        """False for a difference over the tolerance, and for NaN."""
        return self.relative <= self.tolerance


def check(image: Path | None = None) -> int:
    """Compare conv2d with its definition in NumPy: difference and time; exit with 1 if any difference is too large.

    Args:
        image: a picture of your own (any format Pillow reads; taken as grey) in place of the phantom.
    """
    phantom = phantom_images(0, np.arange(1))[0][0, :, :, 0] / np.float32(255)
    name, pixels = ("phantom 0", phantom) if image is None else (image.name, read_grey(image))
    comparisons = [compare_kernel(kernel, values, name, pixels) for kernel, values in check_kernels()]
    comparisons.append(compare_layer("phantom 0", phantom))
    device = jax.devices()[0]
    print(f"conv2d on {device.device_kind} ({device.platform}), JAX {jax.__version__}, float32\n")
    print(comparison_table(comparisons))
    wrong = sum(not comparison.ok for comparison in comparisons)
    print(f"\n{wrong or 'none'} of {len(comparisons)} over the tolerance")
    return 1 if wrong else 0


def check_kernels() -> list[tuple[str, Float32[np.ndarray, "kernel_height kernel_width"]]]:
    """The kernels of the table.

    The classic three look the same in a mirror; only the random one notices columns that are not flipped, or the two
    axes exchanged.
    """
    makers = {"edge": horizontal_edge_kernel, "gaussian": gaussian_kernel, "sharpening": sharpening_kernel}
    kernels = [(name, make(k)) for name, make in makers.items() for k in (3, 5, 7)]
    kernels.append(("random", np.random.default_rng(0).standard_normal((3, 7))))
    # Rounded to float32 here, so that both sides get the same numbers and only their sums differ.
    return [(name, kernel.astype(np.float32)) for name, kernel in kernels]


def read_grey(path: Path) -> Float32[np.ndarray, "height width"]:
    """Grey values divided by 255; pictures with deeper pixels (16 bits, float) keep their full depth.

    Raises:
        UserError: the file is missing, is no picture, or holds NaN or infinity.
    """
    try:
        with Image.open(path) as picture:
            deep = picture.mode.startswith(("I", "F"))
            pixels = np.asarray(picture if deep else picture.convert("L"), np.float32) / np.float32(255)
    except Exception as error:  # A damaged one makes Pillow raise many kinds.
        raise UserError(f"--image {path}: {error}; give a picture that Pillow can read") from error
    if not np.isfinite(pixels).all():
        raise UserError(f"--image {path}: holds NaN or infinity; give a picture with finite values")
    return pixels


# --- The tolerance ----------------------------------------------------------------------------------------------


def tolerance(terms: int, dtype: DTypeLike) -> float:
    """How far conv2d and manual_conv2d may lie apart at a pixel, relative to the sum of |f| |g| there.

    A sum of n products in floating point, in any order, lies within gamma_n sum |f| |g| of the true one, where
    gamma_n = n eps / (1 - n eps) (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1). Higham
    has the unit roundoff, eps / 2, for a machine that rounds to nearest; eps also covers one that truncates.
    Three such errors add up: conv2d's sum (types of 16 bits are summed in float32), the rounding of its result to
    `dtype`, and the float64 sum of manual_conv2d.

    Relative to the result itself there is no such bound: where the terms cancel, any error is large beside the rest.

    Args:
        terms: n, the number of products in one sum.
        dtype: of the image and the result of conv2d.
    """
    accumulator = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
    return _gamma(terms, accumulator) + float(jnp.finfo(dtype).eps) + _gamma(terms, jnp.float64)


def _gamma(terms: int, dtype: DTypeLike) -> float:
    n_eps = terms * float(jnp.finfo(dtype).eps)
    return n_eps / (1 - n_eps)


def largest_differences(fast: np.ndarray, manual: np.ndarray, magnitudes: np.ndarray) -> tuple[float, float]:
    """The largest absolute difference, and the largest one relative to `magnitudes`, the sums of |f| |g|."""
    differences = np.abs(fast.astype(np.float64) - manual)
    # Where all terms are 0 so is the sum, without rounding: 0 / 0 is no difference, anything else an infinite one.
    where_zero = np.where(differences == 0, 0.0, np.inf)
    relative = np.divide(differences, magnitudes, out=where_zero, where=magnitudes > 0)
    return float(differences.max()), float(relative.max())


# --- One kernel -------------------------------------------------------------------------------------------------


def compare_kernel(
    name: str,
    kernel: Float32[np.ndarray, "kernel_height kernel_width"],
    image_name: str,
    image: Float32[np.ndarray, "height width"],
) -> Comparison:
    """Convolve the image both ways."""
    fast, compile_ms, fast_ms = compile_and_time(conv2d, jnp.asarray(image), jnp.asarray(kernel))
    manual, manual_ms = timed(lambda: manual_conv2d(image, kernel))
    magnitudes = manual_conv2d(np.abs(image), np.abs(kernel))
    differences = largest_differences(np.asarray(fast), manual, magnitudes)
    limit = tolerance(kernel.size, image.dtype)
    return Comparison(name, kernel.shape, image_name, *differences, limit, manual_ms, compile_ms, fast_ms)


# --- One layer of a network -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """A layer of a network, and what went in and came out when the network ran."""

    layer: nn.Module
    inputs: Float[Array, "batch height width in"]
    outputs: Float[Array, "batch out_height out_width out"]


def compare_layer(image_name: str, image: Float32[np.ndarray, "height width"]) -> Comparison:
    """Run a SimpleCNN on the image, and recompute its second convolution channel by channel with manual_conv2d."""
    network = SimpleCNN()
    images = jnp.asarray(image)[None, :, :, None]
    variables = jax.jit(network.init, static_argnames="train")(jax.random.key(0), images, train=False)
    parameters = variables["params"]["conv2"]
    # The layer leaves the precision to JAX, whose default lets GPUs and TPUs round float32 to fewer bits.
    with jax.default_matmul_precision("highest"):
        call = record_layer(network, variables, images, "conv2")
        _, compile_ms, fast_ms = compile_and_time(call.layer.apply, {"params": parameters}, call.inputs)

    inputs, kernel, bias = (np.asarray(array) for array in (call.inputs[0], parameters["kernel"], parameters["bias"]))
    manual, manual_ms = timed(lambda: manual_conv_layer(inputs, kernel, bias))
    magnitudes = manual_conv_layer(np.abs(inputs), np.abs(kernel), np.abs(bias))
    differences = largest_differences(np.asarray(call.outputs[0]), manual, magnitudes)
    limit = tolerance(math.prod(kernel.shape[:3]) + 1, inputs.dtype)  # the bias is one more term
    name = "SimpleCNN conv2"
    return Comparison(name, kernel.shape, image_name, *differences, limit, manual_ms, compile_ms, fast_ms)


def record_layer(network: nn.Module, variables: Any, images: Float[Array, "..."], name: str) -> LayerCall:
    """Run the network in inference mode and keep the call of the layer with this name."""
    calls = []

    def keep(call: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        outputs = call(*args, **kwargs)
        if context.module.name == name and context.method_name == "__call__":
            calls.append(LayerCall(context.module.clone(parent=None), args[0], outputs))
        return outputs

    with nn.intercept_methods(keep):
        network.apply(variables, images, train=False)
    (only,) = calls
    return only


def manual_conv_layer(
    image: Float[np.ndarray, "height width in"],
    kernel: Float[np.ndarray, "kernel_height kernel_width in out"],
    bias: Float[np.ndarray, " out"],
) -> Float64[np.ndarray, "out_height out_width out"]:
    """What a convolution layer of stride 1 without padding computes, channel by channel with manual_conv2d.

    Such layers correlate, so the kernel is flipped, and they stop where the kernel would leave the image, so the
    border is cropped.
    """
    flipped = kernel[::-1, ::-1]
    outputs = [
        sum((manual_conv2d(image[:, :, c], flipped[:, :, c, out]) for c in range(image.shape[2])), start=bias[out])
        for out in range(kernel.shape[3])
    ]
    (height, width), (kr, kc) = image.shape[:2], (size // 2 for size in kernel.shape[:2])
    return np.stack(outputs, axis=-1)[kr : height - kr, kc : width - kc]


# --- Times and the table ----------------------------------------------------------------------------------------


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """The result, and the milliseconds until it was there."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, 1000 * (time.perf_counter() - start)


def compile_and_time(function: Callable[..., Any], *args: Any) -> tuple[Array, float, float]:
    """The result, milliseconds to compile, and milliseconds of the fastest of five calls."""
    # A new function each time: JAX would find the code it compiled for an earlier kernel of the same shape.
    compiled, compile_ms = timed(lambda: jax.jit(lambda *args: function(*args)).lower(*args).compile())
    calls = [timed(lambda: compiled(*args)) for _ in range(5)]
    return calls[0][0], compile_ms, min(milliseconds for _, milliseconds in calls)


def comparison_table(comparisons: list[Comparison]) -> str:
    """The comparisons as aligned columns under their headings."""
    header = (
        *("kernel", "size", "image", "max abs diff", "max rel diff", "tolerance"),
        *("manual ms", "conv2d compile ms", "conv2d ms", "ok"),
    )
    rows = [
        (
            *(c.kernel, "x".join(map(str, c.shape)), c.image),
            *(f"{number:.1e}" for number in (c.absolute, c.relative, c.tolerance)),
            *(f"{milliseconds:.2f}" for milliseconds in (c.manual_ms, c.compile_ms, c.fast_ms)),
            "yes" if c.ok else "NO",
        )
        for c in comparisons
    ]
    return format_table([header, *rows], left=3)
