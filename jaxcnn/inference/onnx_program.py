"""Write a classifier as an ONNX program, by jax2onnx, and check what ONNX Runtime makes of it."""

import contextlib
import dataclasses
import functools
import io
import logging
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jax import lax
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Num, Shaped

from jaxcnn.cpu import xla_only
from jaxcnn.errors import UserError
from jaxcnn.inference.trained import Members, classify, compile_with_weights

OPSET = 23
# Of probabilities. Sums are added in other orders, so that a pixel of a resized image may be rounded to the next grey
# level; and what was trained in bfloat16 is computed in float32, since ONNX Runtime has few operations of that type.
_TOLERANCE = {"float32": 5e-3, "bfloat16": 0.05}


def onnx_classifier(members: Members) -> tuple[bytes, float]:
    """The classifier with its weights and its preprocessing as an ONNX program.

    It takes uint8 (batch, height, width, 1) for any batch and gives float32 (batch, classes).

    Returns:
        The file, and the largest difference of ONNX Runtime's probabilities from JAX's, for noise with a bright disc.

    Raises:
        UserError: jax2onnx or onnxruntime is not installed or doesn't fit JAX, or an operation can't be written, or the
            probabilities differ.
    """
    try:
        import onnxruntime
        from jax2onnx import to_onnx
    except ImportError as error:
        raise UserError(f"ONNX needs the package {error.name}; install it with pip install 'jaxcnn[onnx]'") from error
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *members[0].image_shape), jnp.uint8)
    # jax2onnx replaces functions of JAX and Flax while it traces: it gets what is traced already, without these.
    with xla_only():
        exact = tuple(dataclasses.replace(trained, model=trained.model.clone(dtype=jnp.float32)) for trained in members)
        traced = jax.make_jaxpr(lambda images: classify(exact, images))(images)
    # It reports what it skips, and prints.
    with contextlib.redirect_stdout(io.StringIO()), _silence():
        _add_equivalents()
        try:
            model: Any = to_onnx(
                jaxpr_as_fun(traced), [images], opset=OPSET, input_names=["images"], output_names=["probabilities"]
            )
        except NotImplementedError as error:
            raise UserError(f"ONNX: this network can't be written ({error}); export it with --format jax") from error
        except AttributeError as error:  # It uses what JAX keeps to itself, and JAX 0.12 has moved.
            raise UserError(
                f"ONNX: jax2onnx doesn't fit JAX {jax.__version__} ({error}); use Python 3.11, whose JAX it"
                " fits, or export with --format jax"
            ) from error
    program = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors; it warns of every constant that it removes.
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    return program, _largest_difference(members, lambda images: session.run(None, {"images": images})[0])


def _largest_difference(members: Members, run: Callable[[np.ndarray], np.ndarray]) -> float:
    height, width, channels = members[0].image_shape
    down, across = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    disc = 100 * (down**2 + 2 * across**2 < 0.5).astype(np.uint8)[..., np.newaxis]
    images = disc + np.random.default_rng(0).integers(0, 50, (3, height, width, channels), np.uint8)
    expected = np.asarray(compile_with_weights(classify, members)(images))
    # A batch of another size, too.
    difference = float(max(np.abs(run(images[:count]) - expected[:count]).max() for count in (1, 3)))
    tolerance = max(_TOLERANCE[jnp.dtype(cast(Any, trained.model).dtype).name] for trained in members)
    # A comparison that is false for NaN.
    if not difference <= tolerance:
        raise UserError(
            f"ONNX: the program gives probabilities that differ by up to {difference:.2g} from the run's; export it"
            " with --format jax"
        )
    return difference


@contextlib.contextmanager
def _silence() -> Any:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@functools.cache
def _add_equivalents() -> None:
    """Teach jax2onnx the operations that it can't write, in terms of others that it can."""
    from jax2onnx.plugins import plugin_system

    plugin_system.import_all_plugins()

    def add(primitive: str, equivalent: Callable[..., Array]) -> None:
        @plugin_system.register_primitive(jaxpr_primitive=primitive)
        class Plugin(plugin_system.PrimitiveLeafPlugin):
            def lower(self, ctx: Any, eqn: Any) -> None:
                shapes = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in eqn.invars]
                traced = jax.make_jaxpr(functools.partial(equivalent, **eqn.params))(*shapes)
                plugin_system.PLUGIN_REGISTRY["jit"].lower(ctx, eqn.replace(params={"jaxpr": traced}))

    add("stack", _stack)
    # It would pool over all axes at once, which ONNX Runtime refuses, and no integers.
    add("reduce_window_max", _reduce_window_max)


def _stack(*arrays: Shaped[Array, "*shape"], axis: int) -> Shaped[Array, "*stacked"]:
    return lax.concatenate([lax.expand_dims(array, [axis]) for array in arrays], axis)


def _reduce_window_max(
    x: Num[Array, "*shape"], *, window_dimensions: Any, window_strides: Any, padding: Any, **_: Any
) -> Num[Array, "*reduced"]:
    """Axis by axis, the largest of slices that are shifted against one another.

    What lies around the border may be its nearest pixel as well: every window that reaches out holds that.
    """
    for axis, (size, stride, (before, after)) in enumerate(
        zip(window_dimensions, window_strides, padding, strict=True)
    ):
        if size > 1:
            first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, -1, None, axis=axis)
            x = lax.concatenate([first] * before + [x] + [last] * after, axis)
            end = (x.shape[axis] - size) // stride * stride + 1
            slices = [lax.slice_in_dim(x, start, start + end, stride, axis) for start in range(size)]
            x = functools.reduce(lax.max, slices)
    return x
