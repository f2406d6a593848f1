"""What the tests of training share: standard promotion, processes, and a run to compare with."""

import jax
import pytest
from kills import train
from processes import Processes


@pytest.fixture(scope="module", autouse=True)
def _standard_promotion():
    """Optax counts steps in int32 and multiplies them by floats, which strict dtype promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    return Processes(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="session")
def expected(processes, tmp_path_factory):
    """A run in one process, on one device, that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "expected"
    assert train(processes, folder).code == 0
    return folder
