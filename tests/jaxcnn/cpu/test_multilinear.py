"""A multilinear form's gradients are differentiated and mapped as JAX does it with functions of its own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from jaxcnn.cpu.multilinear import ELSEWHERE, multilinear

# The sum of y * scale * (a @ b), linear in a, b and y; what a CPU computes can be told by its cosine, which is 1.
pytestmark = pytest.mark.optimized
FORM = multilinear(
    "scaled_product",
    {
        "a": {ELSEWHERE: lambda scale, b, y, power: (y * scale**power) @ b.T},
        "b": {ELSEWHERE: lambda scale, a, y, power: a.T @ (y * scale**power)},
        "y": {
            "cpu": lambda scale, a, b, power: scale**power * (a @ b) * jnp.cos(jnp.zeros_like(scale)),
            ELSEWHERE: lambda scale, a, b, power: scale**power * (a @ b),
        },
    },
    constants=("scale",),
)


def ours(scale, a, b):
    return FORM("y", scale, a, b, options=(2,))


def jax_s(scale, a, b):
    return lax.stop_gradient(scale) ** 2 * (a @ b)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


ARGUMENTS = normal(0, 2, 4), normal(1, 2, 3), normal(2, 3, 4)
TANGENTS = normal(3, 2, 4), normal(4, 2, 3), normal(5, 3, 4)


def everything(function, arguments, tangents):
    """Values and derivatives of three orders, forwards and backwards."""

    def loss(*arguments):
        return jnp.sum(jnp.sin(function(*arguments)))

    gradient = jax.grad(loss, (0, 1, 2))

    def gradient_along(*arguments):
        return jax.jvp(gradient, arguments, tangents)[1]

    return {
        "value and derivative": jax.jvp(function, arguments, tangents),
        "gradient": gradient(*arguments),
        "forwards over backwards": gradient_along(*arguments),
        "backwards over backwards": jax.vjp(gradient, *arguments)[1](tangents),
        "backwards over forwards": jax.grad(lambda *a: jnp.sum(jax.jvp(function, a, tangents)[1] ** 2), (1, 2))(
            *arguments
        ),
        "third": jax.jvp(gradient_along, arguments, tangents)[1],
    }


def assert_same(found, expected):
    for name in expected:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found[name], expected[name])


@pytest.mark.slow
def test_derivatives_of_every_kind_are_jax_s():
    run = jax.jit(everything, static_argnums=0)
    assert_same(run(ours, ARGUMENTS, TANGENTS), run(jax_s, ARGUMENTS, TANGENTS))


@pytest.mark.slow
def test_derivatives_are_the_limits_of_differences():
    scale, a, b = ARGUMENTS
    check_grads(lambda a, b: ours(scale, a, b), (a, b), order=3, rtol=0.05, atol=0.05)


AXES = st.tuples(*[st.sampled_from([None, 0, -1])] * 3).filter(lambda axes: axes != (None, None, None))


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(levels=st.lists(AXES, min_size=1, max_size=2))
def test_mapped_over_any_of_the_arrays_once_or_twice_it_is_the_same(levels):
    """The first level is the innermost."""

    def mapped(function):
        for axes in levels:
            function = jax.vmap(function, axes)
        return function

    def copied(arrays):
        for size, axes in enumerate(levels, 2):
            arrays = [
                x if axis is None else jnp.stack([x * (1 + copy) for copy in range(size)], axis)
                for x, axis in zip(arrays, axes, strict=True)
            ]
        return tuple(arrays)

    arguments, tangents = copied(ARGUMENTS), copied(TANGENTS)
    run = jax.jit(lambda function: everything(mapped(function), arguments, tangents), static_argnums=0)
    assert_same(run(ours), run(jax_s))


@pytest.mark.slow
def test_the_hessian_is_jax_s():
    scale, a, b = ARGUMENTS
    found, expected = (jax.hessian(lambda b, f=f: jnp.sum(jnp.sin(f(scale, a, b))))(b) for f in (ours, jax_s))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_rematerialised_scanned_and_without_jit_it_is_the_same():
    scale, a, _ = ARGUMENTS
    square = normal(6, 4, 4) / 4

    def loss(function, square):
        def repeat(x, _):
            return function(scale, jax.checkpoint(function)(scale, x, square), square), None

        return jnp.sum(lax.scan(repeat, a @ jnp.ones((3, 4)), None, length=3)[0])

    found, expected = (jax.jit(jax.grad(partial(loss, f)))(square) for f in (ours, jax_s))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    with jax.disable_jit():
        np.testing.assert_allclose(ours(*ARGUMENTS), jax_s(*ARGUMENTS), rtol=1e-5)


def test_each_platform_gets_its_own_method():
    def program(*platforms):
        return jax.export.export(jax.jit(ours), platforms=platforms)(*ARGUMENTS).mlir_module()

    assert "cosine" in program("cpu")
    for platform in ("cuda", "rocm", "tpu"):
        assert "cosine" not in program(platform)
    both = program("cpu", "cuda")
    assert "cosine" in both
    assert "stablehlo.case" in both
