"""What every test shares: strict dtype promotion, a cache of programs, and the way to real data, if there is some."""

import os
import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest

# For `make fuzz`.
hypothesis.settings.register_profile("fuzz", max_examples=20_000)
# A silent promotion to a wider dtype is a bug on an accelerator; in the tests it is an error.
jax.config.update("jax_numpy_dtype_promotion", "strict")
# What one test compiles the next one finds, and nothing of it is kept in the developer's home.
_CACHE = tempfile.TemporaryDirectory(prefix="jaxcnn-tests-")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def pytest_sessionstart():
    # Not above: the first import of the project must come after the checks of its signatures are in place.
    from jaxcnn.program_cache import keep_programs

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", _CACHE.name)
        keep_programs()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real scans and weights (JAXCNN_SHARED, or ../shared beside the checkout)."""
    folder = Path(os.environ.get("JAXCNN_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set JAXCNN_SHARED)")
    return folder
