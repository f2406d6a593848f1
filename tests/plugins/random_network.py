"""Networks with random weights, without the time that compiling Flax's initializers takes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def random_network(model, image_shape, **options):
    """Random images of this shape, and variables of the model, all drawn by NumPy; `options` are those of `init`."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=image_shape), jnp.float32)
    shapes = jax.eval_shape(partial(model.init, train=False, **options), jax.random.key(0), images)

    def draw(path, leaf):
        # Statistics other than 0 and 1, or an unused norm would go unnoticed.
        drawn = random.uniform(0.5, 1.5, leaf.shape) if path[-1].key == "var" else random.normal(size=leaf.shape) / 2
        return jnp.asarray(drawn, leaf.dtype)

    return images, jax.tree.map_with_path(draw, shapes)
