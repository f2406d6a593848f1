"""Functions with a method of their own for each kind of device, that JAX differentiates in every way and order.

A multilinear form is a number that is linear in each of several arrays. For a convolution it is, with < , > for the sum
over the products of all entries,

    <y, conv(x, kernel)> = <x, input_gradient(kernel, y)> = <kernel, kernel_gradient(x, y)>

The form's gradient by one of the arrays is a function of the others: by y it is the convolution, by x and the kernel
the convolution's two gradients. Each is linear in each of its arguments, so that its derivative by an argument is one
of them again, forwards (`jax.jvp`) as backwards (`jax.vjp`). A method for each of these few functions is therefore
enough for derivatives of any order. `jax.custom_vjp` takes such methods too, but is an error forwards.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike
from jaxtyping import Array

# A function of arrays and options, for each platform that has its own, and for the ELSEWHERE. Platforms have the names
# of `jax.Device.platform` and `jax.export`: cpu, cuda, rocm, tpu.
Methods = Mapping[str, Callable[..., Array]]
ELSEWHERE = "elsewhere"


def multilinear(name: str, gradients: Mapping[str, Methods], constants: Sequence[str] = ()) -> Callable[..., Array]:
    """A multilinear form's gradients, as a function of (the name of the array to differentiate by, the other arrays).

    Args:
        name: of the primitive, as it stands in a jaxpr.
        gradients: for the name of each array that the form is linear in, the methods of the gradient by it. They take
            the constants and the other arrays, in the order of these names, and then the options.
        constants: names of arrays that the form is not linear in. The derivative by them is taken to be 0.

    Returns:
        A function of the name, the constants and other arrays, in order, and hashable `options` for the methods.
    """
    names = (*constants, *gradients)
    primitive = Primitive(name)

    def operands_for(wanted: str) -> tuple[str, ...]:
        return tuple(each for each in names if each != wanted)

    # `maps` has for each level of `jax.vmap`, the innermost first, the names of the arrays that have its axis.
    def compute(
        platform: str, *arrays: ArrayLike, wanted: str, maps: tuple[tuple[str, ...], ...], options: Any
    ) -> Array:
        methods = gradients[wanted]
        method = methods.get(platform, methods[ELSEWHERE])

        def function(*arrays: ArrayLike) -> Array:
            return method(*arrays, *options)

        for mapped in maps:
            function = jax.vmap(function, tuple(0 if each in mapped else None for each in operands_for(wanted)))
        return function(*arrays)

    @partial(jax.jit, static_argnames=("wanted", "maps", "options"))
    def run(*arrays: ArrayLike, **how: Any) -> Array:
        own = {each: partial(compute, each, **how) for each in gradients[how["wanted"]] if each != ELSEWHERE}
        return lax.platform_dependent(*arrays, default=partial(compute, ELSEWHERE, **how), **own)

    def shape(*arrays: Any, **how: Any) -> Any:
        return jax.make_jaxpr(partial(compute, ELSEWHERE, **how))(*arrays).out_avals[0]

    def differentiate(place: int, tangent: ArrayLike, *arrays: ArrayLike, **how: Any) -> Array:
        return primitive.bind(*arrays[:place], tangent, *arrays[place + 1 :], **how)

    def transpose(cotangent: Any, *arrays: Any, wanted: str, maps: tuple[tuple[str, ...], ...], options: Any) -> Any:
        operands = operands_for(wanted)
        (place,) = (index for index, each in enumerate(arrays) if ad.is_undefined_primal(each))
        unknown = operands[place]
        if type(cotangent) is ad.Zero:
            gradient: Any = ad.Zero(arrays[place].aval.to_ct_aval())
        else:
            known = {**dict(zip(operands, arrays, strict=True)), wanted: cotangent}
            # The result has the axis of every level, and so has its cotangent. An array that hasn't gets the sum.
            swapped = tuple((*(each for each in mapped if each != unknown), wanted) for mapped in maps)
            others = (known[each] for each in operands_for(unknown))
            gradient = primitive.bind(*others, wanted=unknown, maps=swapped, options=options)
            shared = tuple(axis for axis, mapped in enumerate(reversed(maps)) if unknown not in mapped)
            gradient = jnp.sum(gradient, shared) if shared else gradient
        return [gradient if index == place else None for index in range(len(arrays))]

    def batch(arrays: Sequence[ArrayLike], axes: Sequence[int | None], *, wanted: str, maps: Any, options: Any) -> Any:
        mapped = tuple(each for each, axis in zip(operands_for(wanted), axes, strict=True) if axis is not None)
        in_front = (x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(arrays, axes, strict=True))
        return primitive.bind(*in_front, wanted=wanted, maps=(*maps, mapped), options=options), 0

    primitive.def_impl(run)
    primitive.def_abstract_eval(shape)
    linear = range(len(constants), len(names) - 1)
    ad.defjvp(primitive, *(None for _ in constants), *(partial(differentiate, place) for place in linear))
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(partial(compute, ELSEWHERE), multiple_results=False))
    for platform in {each for methods in gradients.values() for each in methods} - {ELSEWHERE}:
        lower = mlir.lower_fun(partial(compute, platform), multiple_results=False)
        mlir.register_lowering(primitive, lower, platform=platform)

    def gradient(wanted: str, *arrays: ArrayLike, options: tuple[Hashable, ...] = ()) -> Array:
        return primitive.bind(*arrays, wanted=wanted, maps=(), options=options)

    return gradient
