"""What an example draws depends on the run's key and its place in the global batch, not on the devices."""

import jax
import numpy as np
import pytest

from jaxcnn.example_keys import example_keys


def test_every_example_has_a_key_of_its_own():
    keys = jax.random.key_data(example_keys(jax.random.key(3), 100))
    assert len({tuple(key) for key in np.asarray(keys).tolist()}) == 100


@pytest.mark.parametrize("shares", [1, 2, 4, 8])
def test_shares_of_a_batch_have_the_keys_of_the_whole(shares):
    key = jax.random.key(3)

    def share(_):
        return jax.random.key_data(example_keys(key, 8 // shares, axis_name="devices"))

    spread = jax.vmap(share, axis_name="devices")(np.arange(shares))
    np.testing.assert_array_equal(spread.reshape(8, -1), jax.random.key_data(example_keys(key, 8)))


def test_a_larger_batch_starts_like_a_smaller_one():
    small, large = (jax.random.key_data(example_keys(jax.random.key(3), size)) for size in (4, 9))
    np.testing.assert_array_equal(large[:4], small)
