"""What must not happen between two checkpoints: a state that is not finite is not kept, whichever part of it is not."""

import jax.numpy as jnp
import numpy as np
import pytest

from train.loop import not_finite
from train.state import TrainState

PARTS = {
    "params": "parameters",
    "batch_stats": "batch statistics",
    "average": "averaged weights",
    "opt_state": "optimizer's moments",
}


def state(**changed):
    tree = {"layer": {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}}
    return TrainState(**{"step": 3, "frozen": {}, **dict.fromkeys(PARTS, tree), **changed})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("field", "words"), PARTS.items())
def test_each_part_of_a_state_is_looked_at(field, words, bad):
    assert not_finite(state(**{field: {"layer": {"a": jnp.array([1.0, bad, 1.0])}}})) == words


def test_a_finite_state_may_count_and_may_have_no_average():
    assert not_finite(state(average={}, opt_state=(jnp.int32(7), jnp.ones(2)))) == ""
