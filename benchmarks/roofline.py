"""Floating-point operations and bytes of a training step, counted from shapes, against the peaks of accelerators.

A roofline (Williams et al., 2009): an operation takes at least its operations over the peak of arithmetic, and at least
its bytes over the bandwidth of the memory, whichever is longer. Only convolutions and matrix products are counted; each
reads its arguments once and writes its result once, in bfloat16. Elementwise work is assumed to be fused into them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import SimpleCNN, UNetClassifier, cpu

BATCH = 256

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """Peaks from a data sheet: operations a second in bfloat16 without sparsity, bytes a second."""

    name: str
    operations: float
    bandwidth: float

    def seconds(self, product: "Product") -> float:
        """The least that it can take."""
        return max(product.operations / self.operations, product.bytes / self.bandwidth)


# NVIDIA H100 Tensor Core GPU data sheet, SXM: 1,979 teraFLOPS in bfloat16 with sparsity, half without; 3.35 TB/s.
# Google Cloud TPU v5e documentation: 197 teraFLOPS in bfloat16, 819 GB/s a chip.
ACCELERATORS = (Accelerator("H100 SXM", 989.5e12, 3.35e12), Accelerator("TPU v5e", 197e12, 819e9))


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or a matrix product: the shapes of its arguments and its result, operations, bytes in bfloat16."""

    shapes: str
    operations: int
    bytes: int


def products(function: Callable[..., Any], *arguments: Any) -> list[Product]:
    """All in the program that JAX traces, those of gradients too; arguments may be shapes alone."""
    with cpu.xla_only():
        return [_product(equation) for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr)]


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation
        for value in equation.params.values():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from _equations(getattr(value, "jaxpr", value))


def _product(equation: Any) -> Product:
    a, b, result = (variable.aval.shape for variable in (*equation.invars, *equation.outvars))
    if equation.primitive.name == "dot_general":
        (contracting, _), _ = equation.params["dimension_numbers"]
        operations = 2 * math.prod(result) * math.prod(a[axis] for axis in contracting)
    else:
        operations = _convolution_operations(a, b, result, equation.params)
    return Product(f"{_by(a)} * {_by(b)}", operations, 2 * sum(map(math.prod, (a, b, result))))


def _convolution_operations(a: Shape, b: Shape, result: Shape, params: Mapping[str, Any]) -> int:
    """Without those by the zeros of padding and dilation, of which a kernel as large as the image has many."""
    (batch, _, *a_axes), (features, terms, *b_axes), (_, _, *axes) = params["dimension_numbers"]
    pairs = 1
    for a_axis, b_axis, axis, stride, (before, _), a_step, b_step in zip(
        a_axes,
        b_axes,
        axes,
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    ):
        places = np.arange(result[axis])[:, None] * stride + np.arange(b[b_axis]) * b_step - before
        inside = (places >= 0) & (places <= (a[a_axis] - 1) * a_step) & (places % a_step == 0)
        pairs *= int(inside.sum())
    return 2 * a[batch] * b[features] * b[terms] * pairs


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def training_steps() -> dict[str, list[Product]]:
    """By name: the SimpleCNN, the UNetClassifier from cached features, and from images."""
    images = jax.ShapeDtypeStruct((BATCH, 128, 128, 1), jnp.float32)
    features = jax.ShapeDtypeStruct((BATCH, 8, 8, 256), jnp.float32)
    transfer = UNetClassifier()
    return {
        "SimpleCNN": _step(SimpleCNN(), images, images),
        "UNetClassifier, from features": _step(transfer, images, features, method="classify"),
        "UNetClassifier, encoder": _forward(transfer, images, method="encode"),
    }


def _step(model: Any, images: Any, inputs: Any, **options: Any) -> list[Product]:
    variables = jax.eval_shape(lambda key: model.init(key, jnp.zeros(images.shape), train=False), jax.random.key(0))

    def loss(params: Any, statistics: Any, inputs: Any) -> Any:
        variables = {"params": params, "batch_stats": statistics}
        dropout = {"dropout": jax.random.key(0)}
        return model.apply(variables, inputs, train=True, rngs=dropout, mutable=["batch_stats"], **options)[0].sum()

    return products(jax.grad(loss), variables["params"], variables["batch_stats"], inputs)


def _forward(model: Any, images: Any, **options: Any) -> list[Product]:
    variables = jax.eval_shape(lambda key: model.init(key, jnp.zeros(images.shape), train=False), jax.random.key(0))
    return products(lambda variables, images: model.apply(variables, images, **options), variables, images)


def print_roofline() -> None:
    """The steps' totals, and the operations that bandwidth limits on an accelerator."""
    for name, found in training_steps().items():
        operations, moved = sum(product.operations for product in found), sum(product.bytes for product in found)
        print(f"{name}, batch {BATCH}: {operations / BATCH / 1e9:.2f} GFLOP and {moved / BATCH / 1e6:.2f} MB an image")
        for accelerator in ACCELERATORS:
            ridge = accelerator.operations / accelerator.bandwidth
            limited = [product for product in found if product.operations / product.bytes < ridge]
            seconds = sum(map(accelerator.seconds, found))
            share = sum(map(accelerator.seconds, limited)) / seconds
            print(
                f"  {accelerator.name}: at least {seconds * 1e3:.2f} ms a step, {BATCH / seconds:,.0f} images/s;"
                f" bandwidth limits {len(limited)} of {len(found)} products, {share:.0%} of the time"
            )
            for product in sorted(limited, key=accelerator.seconds, reverse=True)[:4]:
                print(f"    {accelerator.seconds(product) * 1e3:8.3f} ms  {product.shapes}")
