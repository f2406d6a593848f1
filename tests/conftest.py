"""What every test shares: strict dtype promotion, and the way to the real data where there is some."""

import os
from pathlib import Path

import jax
import pytest

# A silent promotion to a wider dtype is a bug on an accelerator; in the tests it is an error.
jax.config.update("jax_numpy_dtype_promotion", "strict")
# What the tests compile is not kept in the developer's home.
jax.config.update("jax_enable_compilation_cache", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real scans and weights (JAXCNN_SHARED, or ../shared beside the checkout)."""
    folder = Path(os.environ.get("JAXCNN_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set JAXCNN_SHARED)")
    return folder
