"""Normalise images in [0, 1] for a network; weights only work with the normalisation that they were trained with.

Scanners give intensities no unit: the same tissue is bright on one machine and dark on another. Nyul and Udupa ("On
standardizing the MR image intensity scale", 1999) and Reinhold et al. ("Evaluating the impact of intensity
normalization on MR image synthesis", 2019) compare ways to make them comparable. Here each image is normalised by
itself, so that nothing has to be known of a scan but its pixels.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

Images = Float[Array, "batch height width channel"]

# Of red, green and blue over ImageNet's training images, as torchvision's networks were trained with.
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# A quarter of an 8-bit grey level: an image whose intensities differ by less is blank, and must not be blown up.
_LEAST_CONTRAST = 1e-3

VOLUME_PERCENTILES = (10, 99)
# Black is about half a deviation below the mean of a stack, and the brightest tissue three to six above.
_LEAST_DEVIATIONS, _MOST_DEVIATIONS = -2.0, 6.0


def unchanged(images: Images) -> Images:
    """Leave the images as they are."""
    return images


def per_image_z_score(images: Images) -> Images:
    """Subtract the mean of each channel of each image, and divide by its standard deviation + 1e-3."""
    mean = jnp.mean(images, axis=(1, 2), keepdims=True)
    deviation = jnp.std(images, axis=(1, 2), keepdims=True)
    return (images - mean) / (deviation + 1e-3)


def foreground_z_score(images: Images) -> Images:
    """Subtract the mean of each channel's foreground, and divide by the foreground's standard deviation.

    The z-score of Reinhold et al. (2019), who take it over the brain. Here there is no brain mask; foreground is what
    is brighter than the channel's mean (`estimate_foreground` in their package intensity-normalization). That needs no
    level of its own: an image whose intensities are scaled or shifted has the same foreground, and so the same result.
    How much black there is around a head hardly matters, as it does to `per_image_z_score`.
    """
    whole_mean, whole_deviation = _moments(images, jnp.ones_like(images, dtype=bool))
    # In a blank image the mean may be rounded above every pixel; then the brightest ones are the foreground.
    threshold = jnp.minimum(whole_mean, jnp.max(images, axis=(1, 2), keepdims=True))
    mean, deviation = _moments(images, images >= threshold)
    # A foreground of one grey level has no deviation of its own to measure in.
    deviation = jnp.maximum(deviation, 0.1 * whole_deviation)
    return (images - mean) / jnp.maximum(deviation, _LEAST_CONTRAST)


def _moments(images: Images, mask: Bool[Array, "batch height width channel"]) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel of each image under the mask."""
    mean = jnp.mean(images, axis=(1, 2), keepdims=True, where=mask)
    return mean, jnp.sqrt(jnp.mean((images - mean) ** 2, axis=(1, 2), keepdims=True, where=mask))


def percentile(images: Images) -> Images:
    """Stretch each channel of each image so that its 1st percentile is 0 and its 99th is 1, and clip it there.

    Percentiles in place of the extremes, so that a bright artefact doesn't darken all else: the ends of the scale in
    Nyul and Udupa (1999), without the landmarks between. A slow one on CPU: each image is sorted.
    """
    low, high = jnp.percentile(images, jnp.asarray([1.0, 99.0], images.dtype), axis=(1, 2), keepdims=True)
    return jnp.clip((images - low) / jnp.maximum(high - low, _LEAST_CONTRAST), 0, 1)


def imagenet(images: Images) -> Float[Array, "batch height width 3"]:
    """Normalise by ImageNet's mean and standard deviation; a grey image becomes three channels."""
    mean, deviation = (jnp.asarray(of, images.dtype) for of in (_IMAGENET_MEAN, _IMAGENET_DEVIATION))
    return (images - mean) / deviation


def volume_z_score(images: Images) -> Images:
    """What `standardize_volumes` stored, as floats of mean 0 and standard deviation 1 over a patient's slices."""
    return images * (_MOST_DEVIATIONS - _LEAST_DEVIATIONS) + _LEAST_DEVIATIONS


def standardize_volumes(
    images: UInt8[np.ndarray, "n height width channel"], patients: Sequence[str]
) -> UInt8[np.ndarray, "n height width channel"]:
    """Normalise the slices of each patient together, as the hub's network was trained, and store them as bytes.

    Intensities are clipped at the 10th and the 99th percentile of the patient's stack, over all channels; then each
    channel has its mean over the stack subtracted, and is divided by its standard deviation. A slice by itself can't
    tell how bright a tumour is: where it shows little, its own deviation blows up what there is.
    """
    standardized, of = np.empty_like(images), np.array(patients)
    for patient in dict.fromkeys(patients):
        stack = images[of == patient].astype(np.float32) / 255
        clipped = np.clip(stack, *np.percentile(stack, VOLUME_PERCENTILES))
        mean, deviation = (moment(clipped, axis=(0, 1, 2)) for moment in (np.mean, np.std))
        scores = (clipped - mean) / np.maximum(deviation, _LEAST_CONTRAST)
        shares = (scores - _LEAST_DEVIATIONS) / (_MOST_DEVIATIONS - _LEAST_DEVIATIONS)
        standardized[of == patient] = np.round(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    return standardized


# The names that --normalization takes.
NORMALIZATIONS: dict[str, Callable[[Images], Images]] = {
    "none": unchanged,
    "per-image-z-score": per_image_z_score,
    "foreground-z-score": foreground_z_score,
    "percentile": percentile,
    "imagenet": imagenet,
    "volume-z-score": volume_z_score,
}
# Of these the images have had `standardize_volumes` before they are framed.
BY_VOLUME = ("volume-z-score",)
