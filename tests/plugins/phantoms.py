"""A phantom's image depends on its seed and number alone, so the tests draw each but once, in whatever process."""

import hashlib
import os
from pathlib import Path

import jax
import numpy as np

from jaxcnn.data import phantom
from jaxcnn.runs.files import whole_file

_QUICK = "jax_disable_most_optimizations"


def keep_drawn() -> None:
    """From here on, what was drawn before comes from files, but in tests that are marked `optimized`."""
    folder, draw = Path(os.environ["JAXCNN_TESTS_PHANTOM"]), phantom._render_chunk

    def render_chunk(seed, indices):
        if not jax.config.read(_QUICK):
            return draw(seed, indices)
        path = folder / f"{hashlib.sha256(np.append(indices, seed).tobytes()).hexdigest()}.npy"
        if not path.exists():
            jax.config.update(_QUICK, False)
            images = draw(seed, indices)
            jax.config.update(_QUICK, True)
            with whole_file(path) as temporary:
                np.save(temporary, images)
        return np.load(path)

    phantom._render_chunk = render_chunk
