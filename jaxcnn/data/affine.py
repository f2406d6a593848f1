"""Mirror, turn, enlarge and shift an image in a single resampling."""

import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

Image = Float[Array, "height width"]
Scalar = Float[Array, ""]


def transform(
    image: Image,
    *,
    flip: Float[Array, "2"],
    degrees: Scalar,
    scale: Float[Array, "2"],
    shift: Float[Array, "2"],
    outside: float | None = None,
) -> Image:
    """Mirror an image, enlarge it, turn it counterclockwise about its centre and shift it, in this order.

    Pixels are interpolated bilinearly, once; where they fall on pixels of the image they are those, bit for bit.

    What comes in from outside has the lower quartile of the image's border, which is background unless the head fills
    three quarters of it. Most often that is black; a scan on a grey or white page stays on it. A neck that leaves the
    image ends there, as at the end of the field of view, rather than going on in streaks.

    Args:
        image: of any size from 2x2.
        flip: -1 mirrors the rows (upside down) or the columns (left for right), 1 leaves them.
        degrees: the angle.
        scale: of height and width; above 1 enlarges.
        shift: down and to the right, as shares of height and width.
        outside: what comes in from there instead.
    """
    size = jnp.asarray(image.shape, jnp.float32)
    centre = (size - 1) / 2
    border = jnp.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    background = jnp.percentile(border, 25, method="lower") if outside is None else outside
    # Each pixel of the result is looked up in the image, so all is done backwards.
    y, x = jnp.indices(image.shape, jnp.float32, sparse=True)
    y, x = y - centre[0] - shift[0] * size[0], x - centre[1] - shift[1] * size[1]
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    rows, columns = flip[0] * (cos * y + sin * x) / scale[0], flip[1] * (cos * x - sin * y) / scale[1]
    # `map_coordinates` takes no traced value for the outside; a border of one pixel that goes on does the same.
    bordered = jnp.pad(image, 1, constant_values=background)
    return map_coordinates(bordered, [rows + centre[0] + 1, columns + centre[1] + 1], order=1, mode="nearest")
