"""Change in a training image what tells where it comes from rather than what it shows.

A network that can tell the source of a scan from its resolution, compression, border or texture can be right for the
wrong reason where sources and classes go together, as they do in public collections. Each function here redraws one of
these traces; all run inside jit, on an image as the network sees it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.fft import dct

Image = Float[Array, "height width"]
Scalar = Float[Array, ""]

_BLOCK = 8
# The example table for luminance of the JPEG standard (ITU-T T.81, annex K), which nearly all encoders scale.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


def redraw_resolution(key: PRNGKeyArray, image: Image) -> Image:
    """Shrink to 1 to 1/3 of the size, with an area filter, and enlarge again, bilinearly."""
    return resample(image, 3.0 ** jax.random.uniform(key))


def resample(image: Image, factor: Scalar | float) -> Image:
    """Shrink by a factor of at least 1 with an area filter and enlarge to the same size, bilinearly."""

    def down_and_up(size: int) -> Float[Array, "{size} {size}"]:
        # Row i of `down` is pixel i of the small image; those beyond its last get no weight in `up`.
        pixels = jnp.arange(size, dtype=jnp.float32)
        small = jnp.maximum(jnp.floor(size / factor + 0.5), 1)
        ratio = size / small
        low, high = pixels[:, None] * ratio, (pixels[:, None] + 1) * ratio
        down = jnp.clip(jnp.minimum(high, pixels + 1) - jnp.maximum(low, pixels), 0) / ratio
        places = jnp.clip((pixels + 0.5) / ratio - 0.5, 0, small - 1)
        up = jnp.clip(1 - jnp.abs(places[:, None] - pixels), 0)
        return jnp.matmul(up, down, precision=jax.lax.Precision.HIGHEST)

    rows, columns = map(down_and_up, image.shape)
    return jnp.linalg.multi_dot([rows, image, columns.T], precision=jax.lax.Precision.HIGHEST)


def redraw_compression(key: PRNGKeyArray, image: Image) -> Image:
    """Compress as JPEG does, with a quality from 10 to 95."""
    return compress(image, jax.random.uniform(key, minval=10.0, maxval=95.0))


def compress(image: Image, quality: Scalar | float) -> Image:
    """The grey image that is left after JPEG compression.

    What loses something in JPEG is computed: the cosine transform of blocks of 8x8 pixels and its rounding. If a side
    is no multiple of 8, the image is extended by its last row or column.

    Args:
        image: in [0, 1]; 1 is the grey level 255.
        quality: from 1 to 100, as libjpeg scales its tables.
    """
    height, width = image.shape
    padded = jnp.pad(255 * image - 128, ((0, -height % _BLOCK), (0, -width % _BLOCK)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // _BLOCK, _BLOCK, padded.shape[1] // _BLOCK, _BLOCK)
    percent = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    steps = jnp.clip(jnp.floor((_LUMINANCE * percent + 50) / 100), 1, 255)[:, None, :]
    # The orthonormal cosine transform (DCT-II) of 8 values: a row a frequency.
    waves = jnp.asarray(dct(np.eye(_BLOCK), axis=0, norm="ortho"), jnp.float32)
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    levels = jnp.round(product("ri,aibj,cj->arbc", waves, blocks, waves) / steps[None])
    restored = product("ri,arbc,cj->aibj", waves, levels * steps[None], waves)
    return jnp.clip((jnp.round(restored.reshape(padded.shape)) + 128) / 255, 0, 1)[:height, :width]


def redraw_border(key: PRNGKeyArray, image: Image) -> Image:
    """Paint up to an eighth of the image at each of its sides black or white, as a letterbox or a page does."""
    widths = jax.random.uniform(jax.random.fold_in(key, 0), (4,), maxval=1 / 8)
    down, along = ((jnp.arange(side, dtype=jnp.float32) + 0.5) / side for side in image.shape)
    inside = ((down > widths[0]) & (down < 1 - widths[1]))[:, None] & (along > widths[2]) & (along < 1 - widths[3])
    return jnp.where(inside, image, jax.random.bernoulli(jax.random.fold_in(key, 1)).astype(image.dtype))


def redraw_texture(key: PRNGKeyArray, image: Image) -> Image:
    """Mix with the image under a random 3x3 convolution, whose mean and deviation are made those of the image.

    Xu et al., "Robust and generalizable visual representation learning via random convolutions" (2021).
    """
    kernel = jax.random.normal(jax.random.fold_in(key, 0), (3, 3))
    padded, (height, width) = jnp.pad(image, 1, mode="edge"), image.shape
    terms = [kernel[r, c] * padded[r : r + height, c : c + width] for r in range(3) for c in range(3)]
    filtered = sum(terms, jnp.zeros_like(image))
    deviation = jnp.maximum(jnp.std(filtered), 1e-6)
    alike = (filtered - jnp.mean(filtered)) * (jnp.std(image) / deviation) + jnp.mean(image)
    return image + jax.random.uniform(jax.random.fold_in(key, 1)) * (alike - image)
