"""Optax counts steps in int32 and multiplies them by floats, which strict dtype promotion refuses."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield
