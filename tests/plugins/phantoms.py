"""A phantom's image depends on its seed and number alone, so the tests draw each but once, in whatever process."""

import hashlib
import os
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jaxcnn.data import phantom
from jaxcnn.runs.files import whole_file

_QUICK = "jax_disable_most_optimizations"


def keep_drawn() -> None:
    """From here on, what was drawn before comes from files, but in tests that are marked `optimized`."""
    for name in ("_render_chunk", "_mask_chunk"):
        setattr(phantom, name, partial(_drawn, name, getattr(phantom, name)))


def _drawn(name, draw, seed, indices):
    if not jax.config.read(_QUICK):
        return draw(seed, indices)
    asked = hashlib.sha256(np.append(indices, seed).tobytes()).hexdigest()
    path = Path(os.environ["JAXCNN_TESTS_PHANTOM"]) / f"{name}-{asked}.npy"
    if not path.exists():
        jax.config.update(_QUICK, False)
        images = draw(seed, indices)
        jax.config.update(_QUICK, True)
        with whole_file(path) as temporary:
            np.save(temporary, images)
    return np.load(path)
