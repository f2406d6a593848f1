"""Crop images to the head, so that scans from different sources look alike.

All of it runs inside jit, on a small copy of the image; only the last step touches the image itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

# The head is sought on a copy this many pixels wide and high: fine enough for a box, and noise is averaged away.
_SIDE = 64
_LEVELS = 64  # Of grey, in the histogram that gives the threshold.
_MARGIN = 0.02  # Around the head, as a share of the image's side: about one pixel of the copy.
_FRAME = _SIDE // 8  # A frame drawn around a scan lies within so many pixels of the border.
_FRAME_COVERS = 0.9  # Of the border's length; the head never fills a row or a column to its very ends.
_LEAST_PART = 1 / 8  # Of the largest region's pixels; scalp that bone sets apart from the brain has more, text less.
_LEAST = np.iinfo(np.int32).min
_LEAST_HEAD = 0.05  # Of the image's pixels; where all is smaller there is no head.

Copy = Float[Array, "64 64"]
Mask = Bool[Array, "64 64"]


def crop_to_head(
    images: Float[Array, "batch height width 1"], shape: tuple[int, int] | None = None
) -> Float[Array, "batch rows columns 1"]:
    """Crop each image to the square around its head, and resize that (bilinear, antialiased when it shrinks).

    The head is what is above Otsu's threshold, in large connected regions: without noise, text, and a frame that may
    be drawn around the scan. The square is in shares of height and width, so that the aspect ratio stays, and it lies
    within the image: nothing is made up. Where no head is found the image comes back as it is.

    An image always gives the same result, so this is best done once, before training.

    Args:
        images: in [0, 1]; the head is brighter than what lies around it.
        shape: height and width of the results; None for those of the images.
    """
    rows, columns = shape or images.shape[1:3]
    heads = _large_regions(jax.vmap(_bright)(images))
    return jax.vmap(lambda image, head: _crop(image, head, (rows, columns)))(images, heads)


def _bright(image: Float[Array, "height width 1"]) -> Mask:
    # The square root lifts what is dark: next to a bright tumour or fat, brain must not pass for background.
    copy = jax.image.resize(image[..., 0], (_SIDE, _SIDE), "linear")
    copy = jnp.sqrt(copy - jnp.min(copy))
    return _without_frame(copy > _otsu_threshold(copy))


def _crop(image: Float[Array, "height width 1"], head: Mask, shape: tuple[int, int]) -> Float[Array, "rows columns 1"]:
    start, side = _square_around(head)
    found = jnp.mean(head, dtype=jnp.float32) >= _LEAST_HEAD
    # The square is all of an image without a head; at its own size that gives it back, bit for bit.
    start, side = jnp.where(found, start, 0.0), jnp.where(found, side, 1.0)
    size, target = jnp.asarray(image.shape[:2], jnp.float32), jnp.asarray(shape, jnp.float32)
    scale = target / size / side
    return jax.image.scale_and_translate(image, (*shape, 1), (0, 1), scale, -start * size * scale, "linear")


def _otsu_threshold(image: Copy) -> Float[Array, ""]:
    """The grey level between which two classes differ most (Otsu, "A threshold selection method...", 1979)."""
    low, high = jnp.min(image), jnp.max(image)
    step = jnp.maximum(high - low, 1e-6) / _LEVELS
    levels = jnp.minimum(((image - low) / step).astype(jnp.int32), _LEVELS - 1)
    counts = jnp.sum(levels[..., None] == jnp.arange(_LEVELS), axis=(0, 1), dtype=jnp.float32)
    grey = jnp.arange(_LEVELS, dtype=jnp.float32)
    below, sum_below = jnp.cumsum(counts), jnp.cumsum(counts * grey)
    above, sum_above = below[-1] - below, sum_below[-1] - sum_below
    means_apart = sum_below / jnp.maximum(below, 1) - sum_above / jnp.maximum(above, 1)
    return low + step * (1 + jnp.argmax(below * above * means_apart**2).astype(jnp.float32))


def _without_frame(mask: Mask) -> Mask:
    """Clear each side of the image from its border to the innermost line of a frame."""
    for _ in range(4):
        outer = jnp.arange(_SIDE) < _FRAME
        frame = outer & (jnp.mean(mask, axis=1, dtype=jnp.float32) >= _FRAME_COVERS)
        # What lies outside of a line of the frame goes with it.
        cleared = jnp.flip(jnp.cumsum(jnp.flip(frame))) > 0
        mask = jnp.rot90(mask & ~cleared[:, None])
    return mask


def _large_regions(masks: Bool[Array, "batch 64 64"]) -> Bool[Array, "batch 64 64"]:
    """The pixels of the largest region (of pixels that touch, if only by a corner) and of those not much smaller.

    Of all images at once, by one loop with one condition, as ONNX has it.
    """
    numbers = jnp.where(masks, jnp.arange(1, _SIDE**2 + 1, dtype=jnp.int32).reshape(_SIDE, _SIDE), 0)

    def spread(numbers: Int32[Array, "batch 64 64"]) -> Int32[Array, "batch 64 64"]:
        # Each pixel takes the largest number around it, until every region carries a single one.
        largest = jax.lax.reduce_window(numbers, _LEAST, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")
        return jnp.where(masks, largest, 0)

    regions, _ = jax.lax.while_loop(
        lambda numbers: jnp.any(numbers[0] != numbers[1]),
        lambda numbers: (spread(numbers[0]), numbers[0]),
        (spread(numbers), numbers),
    )
    # A histogram of the numbers, by the two digits to the base of the side: matrix products, which also ONNX has.
    place = regions.reshape(-1, _SIDE**2) - 1
    # No remainder, which jax2onnx doesn't write for a batch of any size.
    digit = jnp.floor(place.astype(jnp.float32) / _SIDE).astype(jnp.int32)
    high, low = jax.nn.one_hot(digit, _SIDE), jax.nn.one_hot(place - _SIDE * digit, _SIDE)
    sizes = jnp.einsum("bph,bpl->bhl", high, low, precision="highest")
    own_size = jnp.sum(jnp.matmul(high, sizes, precision="highest") * low, axis=2).reshape(masks.shape)
    return masks & (own_size >= _LEAST_PART * jnp.max(sizes, axis=(1, 2), keepdims=True))


def _square_around(mask: Mask) -> tuple[Float[Array, "2"], Float[Array, ""]]:
    """Upper left corner and side of the square around a mask, in shares of height and width."""
    lines = jnp.stack([jnp.any(mask, axis=1), jnp.any(mask, axis=0)])
    first = jnp.argmax(lines, axis=1).astype(jnp.float32) / _SIDE
    end = 1 - jnp.argmax(lines[:, ::-1], axis=1).astype(jnp.float32) / _SIDE
    side = jnp.minimum(jnp.max(end - first) + 2 * _MARGIN, 1.0)
    return jnp.clip((first + end - side) / 2, 0, 1 - side), side
