"""The largest program that fits is found with few compilations, and was compiled."""

import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from train.ahead.memory import largest_fitting, needed_bytes


@example(fixed=0.0, each=1e3, bend=0.02, limit=64897703760.0, start=5, step=1, refused_above=math.inf)
@example(fixed=8.96, each=1169983.9, bend=0.0081, limit=10063303.1, start=17, step=8, refused_above=math.inf)
@given(
    fixed=st.floats(0, 1e9),
    each=st.floats(1e3, 1e8),
    bend=st.floats(-0.02, 0.02),
    limit=st.floats(1e6, 1e12),
    start=st.integers(1, 40),
    step=st.sampled_from([1, 8]),
    refused_above=st.sampled_from([1.0, math.inf]),
)
def test_the_largest_that_fits_fits_and_is_near_the_limit(fixed, each, bend, limit, start, step, refused_above):
    """Of programs whose memory is nearly linear; a compiler may refuse those that are too large, or only say so."""
    compiled = {}

    def needed(size):
        assert size not in compiled
        assert size % step == 0
        compiled[size] = fixed + each * size * (1 + bend * math.sin(size))
        return compiled[size] if compiled[size] <= refused_above * limit else math.inf

    found = largest_fitting(needed, limit, start * step, step)
    assert len(compiled) <= 8 + math.log2(start)
    if fixed + each * step * 1.02 > limit:
        return  # Perhaps none does.
    assert compiled[found] <= limit
    assert fixed + each * (found + step) > limit * 0.8 - each * step


def test_none_fits_where_nothing_does():
    assert largest_fitting(lambda size: 10.0 + size, 1.0, 4) == 0
    assert largest_fitting(lambda _: math.inf, 1.0, 4) == 0


def test_what_is_given_back_in_the_place_of_an_argument_is_not_counted_twice():
    x = jax.ShapeDtypeStruct((1000,), jnp.float32)
    kept, donated = (jax.jit(lambda x: x + 1, donate_argnums=of).lower(x).compile() for of in ((), (0,)))
    assert needed_bytes(kept.memory_analysis()) - needed_bytes(donated.memory_analysis()) == pytest.approx(4000, abs=64)
