"""What an example draws depends on the run's key and its place in the global batch, not on the devices."""

import jax
import numpy as np
import pytest

from jaxcnn.models.example_keys import example_places, keys_at


def numbers(batch_size, axis_name=None):
    """The keys of the examples of a share, as numbers."""
    return jax.random.key_data(keys_at(jax.random.key(3), example_places(batch_size, axis_name)))


def test_every_example_has_a_key_of_its_own():
    assert len({tuple(key) for key in np.asarray(numbers(100)).tolist()}) == 100


@pytest.mark.parametrize("shares", [1, 2, 4, 8])
def test_shares_of_a_batch_have_the_keys_of_the_whole(shares):
    spread = jax.vmap(lambda _: numbers(8 // shares, "devices"), axis_name="devices")(np.arange(shares))
    np.testing.assert_array_equal(spread.reshape(8, -1), numbers(8))


def test_a_larger_batch_starts_like_a_smaller_one():
    np.testing.assert_array_equal(numbers(9)[:4], numbers(4))


def test_an_example_has_its_key_whichever_others_are_there():
    places = np.array([5, 0, 7], np.int32)
    some = jax.random.key_data(keys_at(jax.random.key(3), jax.numpy.asarray(places)))
    np.testing.assert_array_equal(some, numbers(8)[places])
