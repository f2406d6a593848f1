"""A function of a batch on many images: by one program, and the same however they are divided."""

import gc
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcnn.cpu.switch import is_xla_only, xla_only
from jaxcnn.data.batch import in_batches


@pytest.mark.slow
@given(st.integers(0, 20), st.integers(1, 9), st.sampled_from(["cpu", "gpu"]))
def test_batches_of_any_size_give_what_the_whole_gives(count, size, backend):
    images = np.arange(6.0 * count, dtype=np.float32).reshape(count, 2, 3)
    traced = set()

    def function(weights, images):
        traced.add(images.shape)
        return {"sums": images.sum(axis=(1, 2)), "scaled": images * weights, "nothing": None}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: backend)
        found = in_batches(partial(jax.jit(function), jnp.float32(3)), images, size)
    assert traced == {(-(-size // 2) if backend == "cpu" else size, 2, 3)}
    np.testing.assert_array_equal(found["sums"], images.sum(axis=(1, 2)))
    np.testing.assert_array_equal(found["scaled"], 3 * images)
    assert found["nothing"] is None


def test_what_is_asked_for_around_the_call_holds_for_its_program():
    asked = []

    def function(images):
        asked.append((is_xla_only(), jax.config.jax_default_matmul_precision))
        return images

    jitted, images = jax.jit(function), np.zeros((8, 1), np.float32)
    with xla_only(), jax.default_matmul_precision("highest"):
        in_batches(jitted, images, 4)
    in_batches(jitted, images, 4)
    assert asked == [(True, "highest"), (False, None)]


def test_a_program_is_compiled_once():
    traced = []
    function = jax.jit(lambda images: traced.append(images.shape) or images + 1)
    for count in (3, 8, 1):
        in_batches(function, np.zeros((count, 2), np.float32), 4)
    assert traced == [(2, 2)]


def test_programs_are_forgotten_with_their_function():
    """What a partial function holds, such as a network's weights, must not stay in memory."""
    weights = np.zeros(3, np.float32)
    known = weakref.ref(weights)
    function = partial(jax.jit(lambda weights, images: images + weights), weights)
    in_batches(function, np.zeros((4, 3), np.float32), 4)
    del weights, function
    gc.collect()
    assert known() is None
