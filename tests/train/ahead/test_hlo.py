"""What is read from a compiled program is what was put into it."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from train.ahead import hlo

MATRIX = jax.ShapeDtypeStruct((256, 256), jnp.float32)
BYTES = 4 * 256 * 256


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("function", "matrices"),
    [
        (lambda x: jnp.sin(x) + 1, 2),
        (lambda x: x @ x, 2),  # Read once, as each argument of a kernel.
        (lambda x: jnp.sin(x[:64]), 2 * 64 / 256),  # Of a slice, the slice.
        (lambda x: jnp.sin(jnp.exp(x))[64:128], 2 * 64 / 256),
        # Three times a product, which reads two matrices and writes one, and a copy; before them one more copy.
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: x @ y, x), 3 * (3 + 2) + 2),
    ],
)
def test_traffic(function, matrices):
    assert hlo.traffic(compiled(function, MATRIX)).bytes == pytest.approx(matrices * BYTES, rel=0.01)


def test_collectives_of_a_program_for_eight_gpus():
    """Of XLA's text for H100s, shortened: two arrays in one all-reduce, and an all-gather that begins and ends."""
    text = """HloModule step

ENTRY %main (a: f32[4,2], b: s32[]) -> (f32[4,2], s32[], bf16[16]) {
  %a = f32[4,2]{1,0} parameter(0)
  %b = s32[] parameter(1)
  %c = bf16[2]{0} constant({1, 2})
  %all-reduce = (f32[4,2]{1,0}, s32[]) all-reduce(%a, %b), channel_id=1, to_apply=%add
  %all-gather-start = (bf16[2]{0}, bf16[16]{0}) all-gather-start(%c), channel_id=2, dimensions={0}
  %all-gather-done = bf16[16]{0} all-gather-done(%all-gather-start)
  ROOT %tuple = (f32[4,2]{1,0}, s32[], bf16[16]{0}) tuple(%all-reduce, %all-reduce, %all-gather-done)
}
"""
    assert hlo.count_collectives(text) == {"all-reduce": 1, "all-gather": 1}
    assert hlo.collectives(text) == {"f32": 32, "s32": 4, "bf16": 32}


def test_convolutions_are_told_by_the_type_that_they_read():
    image = jax.ShapeDtypeStruct((2, 16, 16, 8), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((3, 3, 8, 8), jnp.bfloat16)
    layout = ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, window_strides=(2, 2), padding="SAME", dimension_numbers=layout)
    (found,) = hlo.convolutions(compiled(convolve, image, kernel))
    assert found in {("XLA", "bf16"), ("XLA", "f32"), ("oneDNN", "bf16")}  # A CPU may have no bfloat16.
