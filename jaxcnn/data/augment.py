"""Augment training images inside jit, each with its own key."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxcnn.data.affine import transform
from jaxcnn.data.traces import redraw_border, redraw_compression, redraw_resolution, redraw_texture

Image = Float[Array, "height width"]
Channels = Float[Array, "height width channel"]
Images = Float[Array, "batch height width channel"]
Masks = Int[Array, "batch height width"]
Keys = Key[Array, " batch"]
Scalar = Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The strengths of the augmentations; 0, the default, turns one off and leaves it out of the compiled program.

    Attributes:
        horizontal_flip: probability of a mirror image, left for right.
        vertical_flip: probability of an image upside down.
        rotation: largest angle in degrees, to either side.
        zoom: an image is at most 1 + zoom times as large, or as small; the same in height and width.
        stretch: an image is at most 1 + stretch times as wide for its height, or as high for its width.
        shift: largest shift along each axis, as a share of the image's side.
        brightness: intensities are multiplied by at most 1 + brightness or at least 1 - brightness.
        contrast: so are their distances to the image's mean.
        gamma: intensities are raised to a power between 1 / (1 + gamma) and 1 + gamma.
        curve: largest weight of a random grey curve, from 0 to 1: black stays black, but which tissue is brighter than
            which may change, as it does from one MRI sequence to another.
        blur: largest standard deviation of a Gaussian filter, in pixels.
        noise: largest standard deviation of Gaussian noise; white is 1.
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    curve: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check the strengths.

        Raises:
            ValueError: a strength is negative or not finite, or one that is a probability or a share is above 1.
        """
        shares = ("horizontal_flip", "vertical_flip", "brightness", "contrast", "curve")
        for name, strength in dataclasses.asdict(self).items():
            most = 1 if name in shares else math.inf
            if not (0 <= strength <= most and math.isfinite(strength)):
                raise ValueError(f"{name} must lie between 0 and {most}, got {strength}")

    def __call__(self, keys: Keys, images: Images) -> Images:
        """Change each image at random, determined by its key alone.

        The image is turned, zoomed, shifted and mirrored in one resampling (bilinear), blurred, its intensities are
        changed and noise is added. Each step takes its own numbers from the key: leaving one out doesn't change the
        others. The channels of an image are moved alike; their intensities are changed each by itself, for they are MRI
        sequences. The strengths are constants of the compiled program.

        Args:
            keys: one an image, as `jaxcnn.models.example_keys.keys_at` makes them.
            images: in [0, 1], and so are the results.
        """
        if self == Augmentation():
            return images

        def one(key: PRNGKeyArray, image: Channels) -> Channels:
            geometry = _draw_numbers(key, self)[0]
            keys = [key, *(jax.random.fold_in(key, channel) for channel in range(1, image.shape[-1]))]
            channels = [_augment(own, geometry, image[..., place], self) for place, own in enumerate(keys)]
            return jnp.stack(channels, axis=-1)

        return jax.vmap(one)(keys, images)

    def move_masks(self, keys: Keys, masks: Masks, classes: int) -> Masks:
        """Move masks as the images of the same keys are moved.

        The area of each class is resampled as the images are, and a pixel has the class that covers most of it. What
        comes in from outside is background, class 0.
        """
        if not any(getattr(self, name) for name in _GEOMETRY):
            return masks

        def move(key: PRNGKeyArray, mask: Int[Array, "height width"]) -> Int[Array, "height width"]:
            numbers = _draw_numbers(key, self)[0]
            areas = [
                _move((mask == label).astype(jnp.float32), numbers, self, outside=0.0) for label in range(1, classes)
            ]
            return jnp.argmax(jnp.stack([1 - sum(areas[1:], areas[0]), *areas]), axis=0).astype(mask.dtype)

        return jax.vmap(move)(keys, masks)


# For slices of the head, cropped to it or not. The ranges beside the values are those of nnU-Net's default trainer
# (Isensee et al., 2021), which changes each image in only some of these ways; here all are drawn at once, so less each.
BRAIN_MRI = Augmentation(
    horizontal_flip=0.5,  # Heads are nearly symmetric, and conventions differ in which side is on the left.
    vertical_flip=0.0,  # No scan is upside down.
    rotation=20,  # Heads lie tilted in the coil. nnU-Net turns by up to 180: it segments, in patches.
    zoom=0.15,  # Heads and fields of view differ in size (0.7 to 1.4); more would cut off what is near the skull.
    stretch=0.15,  # Scans that were no squares have been made squares. nnU-Net's images keep their voxels' shape.
    shift=0.06,  # Heads lie off the centre. nnU-Net crops patches instead.
    brightness=0.15,  # The receiver's gain (0.75 to 1.25).
    contrast=0.15,  # The window in which a scan was exported (0.75 to 1.25).
    gamma=0.3,  # Sequences and displays differ in their grey curve (0.7 to 1.5).
    blur=0.7,  # Scans of lower resolution were enlarged (0.5 to 1).
    noise=0.02,  # 5 of 255 grey levels; in the air of 95 % of the Kaggle training scans the deviation is below 3.
)

# What looks alike in every sequence is shape and texture. Monotone curves are those of Zhou et al., "Models Genesis"
# (2019); that a network for one sequence serves another if greys are remapped at random is the finding of Ouyang et
# al., "Causality-inspired single-source domain generalization for medical image segmentation" (2022).
ANY_SEQUENCE = dataclasses.replace(BRAIN_MRI, curve=1.0)

# (keys, images in [0, 1]) -> images in [0, 1]: each image is changed by its own key alone. To segment, it needs a
# method `move_masks` as that of `Augmentation`.
Augment = Callable[[Keys, Images], Images]


@dataclasses.dataclass(frozen=True)
class Redrawn:
    """An augmentation, then traces of an image's source, each redrawn in half of the images.

    Attributes:
        traces: (key, image in [0, 1]) -> image, in this order; all channels of an image are changed by the same key.
        first: what comes before them.
    """

    traces: tuple[Callable[[PRNGKeyArray, Image], Image], ...]
    first: Augmentation = BRAIN_MRI

    def __call__(self, keys: Keys, images: Images) -> Images:
        """Change each image in [0, 1] at random with its key."""

        def one(key: PRNGKeyArray, image: Channels) -> Channels:
            for place, trace in enumerate(self.traces):
                drawn, own = jax.random.split(jax.random.fold_in(key, place))
                changed = jax.vmap(trace, in_axes=(None, 2), out_axes=2)(own, image)
                image = jnp.where(jax.random.bernoulli(drawn), changed, image)
            return jnp.clip(image, 0, 1)

        return jax.vmap(one)(keys, self.first(keys, images))

    def move_masks(self, keys: Keys, masks: Masks, classes: int) -> Masks:
        """Move masks as the images of the same keys are moved: as `first` does, for traces move nothing."""
        return self.first.move_masks(keys, masks, classes)


# The names that --augment takes.
AUGMENTATIONS: dict[str, Augment] = {
    "none": Augmentation(),
    "brain-mri": BRAIN_MRI,
    "any-sequence": ANY_SEQUENCE,
    "any-resolution": Redrawn((redraw_resolution,)),
    "any-compression": Redrawn((redraw_compression,)),
    "any-border": Redrawn((redraw_border,)),
    "any-texture": Redrawn((redraw_texture,)),
    "any-source": Redrawn((redraw_resolution, redraw_texture, redraw_border, redraw_compression), ANY_SEQUENCE),
}

_GEOMETRY = ("horizontal_flip", "vertical_flip", "rotation", "zoom", "stretch", "shift")

# Between black and white, of a random grey curve.
_KNOTS = 4


def _draw_numbers(key: PRNGKeyArray, strengths: Augmentation) -> tuple[Array, PRNGKeyArray, PRNGKeyArray]:
    """A number in [-1, 1] for each thing that is random of an image, and the keys of noise and curve."""
    numbers_key, noise_key, curve_key = jax.random.split(key, 3)
    numbers = jax.random.uniform(numbers_key, (len(dataclasses.fields(strengths)) + 1,), minval=-1.0)
    return numbers, noise_key, curve_key


def _move(
    image: Image, numbers: Float[Array, " numbers"], strengths: Augmentation, outside: float | None = None
) -> Image:
    mirror, upturn, angle, zoom, stretch, down, right, *_ = numbers
    wider = _factor(stretch, strengths.stretch) ** 0.5
    return transform(
        image,
        flip=jnp.stack([_flip(upturn, strengths.vertical_flip), _flip(mirror, strengths.horizontal_flip)]),
        degrees=angle * strengths.rotation,
        scale=_factor(zoom, strengths.zoom) * jnp.stack([1 / wider, wider]),
        shift=jnp.stack([down, right]) * strengths.shift,
        outside=outside,
    )


def _augment(key: PRNGKeyArray, geometry: Float[Array, " numbers"], image: Image, strengths: Augmentation) -> Image:
    # dm-pix has such steps, too, but its affine transform is a hundred times slower, and the others are a line each.
    numbers, noise_key, curve_key = _draw_numbers(key, strengths)
    *_, brightness, contrast, gamma, curve, blur, noise = numbers
    if any(getattr(strengths, name) for name in _GEOMETRY):
        image = _move(image, geometry, strengths)
    if strengths.blur:
        image = _blur(image, (1 + blur) / 2 * strengths.blur)
    if strengths.curve:
        image = _redraw_curve(curve_key, image, (1 + curve) / 2 * strengths.curve)
    if strengths.brightness:
        image = image * (1 + brightness * strengths.brightness)
    if strengths.contrast:
        mean = jnp.mean(image)
        image = mean + (image - mean) * (1 + contrast * strengths.contrast)
    if strengths.gamma:
        image = jnp.clip(image, 0, 1) ** _factor(gamma, strengths.gamma)
    if strengths.noise:
        image = image + (1 + noise) / 2 * strengths.noise * jax.random.normal(noise_key, image.shape)
    return jnp.clip(image, 0, 1)


def _flip(number: Scalar, probability: float) -> Scalar:
    """-1 with this probability, otherwise 1."""
    return jnp.where((1 + number) / 2 < probability, -1.0, 1.0)


def _factor(number: Scalar, strength: float) -> Scalar:
    """A factor between 1 / (1 + strength) and 1 + strength; a factor and its inverse are equally likely."""
    return (1 + strength) ** number


def _redraw_curve(key: PRNGKeyArray, image: Image, weight: Scalar) -> Image:
    """The image mixed with itself under a grey curve: lines from (0, 0) through points of random height to white."""
    heights = jax.random.uniform(key, (_KNOTS,))
    # As a sum of tents, one around each knot, which fuses with what is around it; a look-up would not.
    tents = [jnp.maximum(0, 1 - jnp.abs(_KNOTS * image - (place + 1))) for place in range(_KNOTS)]
    curved = sum((height * tent for height, tent in zip(heights, tents, strict=True)), jnp.zeros_like(image))
    return image + weight * (curved - image)


def _blur(image: Image, deviation: Scalar) -> Image:
    """Gaussian filter; near the border the weights of the pixels that there are add up to 1.

    As two matrix products: written as sums of shifted images, XLA would resample the image anew for each term.
    """
    down, along = (_gaussian_weights(size, deviation) for size in image.shape)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return product(product(down, image), along.T)


def _gaussian_weights(size: int, deviation: Scalar) -> Float[Array, "{size} {size}"]:
    places = jnp.arange(size, dtype=jnp.float32)
    # A deviation of 0 would divide by zero; at this one all weights but a pixel's own vanish.
    distances = (places[:, None] - places) / jnp.maximum(deviation, 0.01)
    return jax.nn.softmax(-0.5 * distances**2)
