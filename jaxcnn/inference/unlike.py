"""Tell how unlike the training images an image is: a classifier knows its own classes alone, and can't say for others.

The score is the Mahalanobis distance of the channel means of the last feature map (Lee, Lee, Lee and Shin: A simple
unified framework for detecting out-of-distribution samples and adversarial attacks. NeurIPS 2018), from one Gaussian of
all training images (Kamoi and Kobayashi: Why is the Mahalanobis distance effective for anomaly detection? 2020). The
energy of the logits (Liu et al. 2020) was measured beside it, and failed: docs/use.md.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxcnn.data.batch import in_batches
from jaxcnn.data.preprocessing import preprocess
from jaxcnn.inference.saliency import split_at_features
from jaxcnn.inference.trained import Members, Trained, classify, compile_with_weights
from jaxcnn.models.table import feature_map_of

REJECTED = 0.05
"""The share of the validation images that are called unlike the training images: it sets the threshold."""

# More training images change the Gaussian little, and the end of a run would take longer.
_MOST_IMAGES = 512
_BATCH_SIZE = 32
# Of the mean variance, added to all: channels that are almost constant must not decide alone.
_SHRINKAGE = 1e-3
# For features that are all the same.
_TINY = 1e-12

Images = UInt8[np.ndarray, "_ _ _ _"]


def judge(
    members: Members, images: UInt8[Array | np.ndarray, "batch height width channel"]
) -> tuple[Float[Array, "batch classes"], Float[Array, " batch"] | None]:
    """Compute the probabilities of the classes, and how unlike the training images each image is.

    The second is in units of the threshold: above 1 it is unlike. It is the mean over the members, and None where one
    was saved without the measure, as older runs were.
    """
    probabilities = classify(members, images)
    if any(trained.unlike is None for trained in members):
        return probabilities, None
    first, *others = (_distance(trained, jnp.asarray(images)) for trained in members)
    return probabilities, sum(others, first) / len(members)


def _distance(trained: Trained, images: Array) -> Float[Array, " batch"]:
    assert trained.unlike is not None
    centred = _channel_means(trained, images) - trained.unlike["mean"]
    return jnp.linalg.norm(jnp.matmul(centred, trained.unlike["whitening"], precision="highest"), axis=1)


def _channel_means(
    trained: Trained, images: UInt8[Array, "batch height width channel"]
) -> Float[Array, "batch feature"]:
    features, _ = split_at_features(trained.model, trained.variables, preprocess(images, trained.preprocessing))
    return jnp.mean(features.astype(jnp.float32), axis=(1, 2))


def fit_unlike(trained: Trained, training: Images, validation: Images) -> Trained:
    """Let a classifier know its training images, and reject a share `REJECTED` of the validation images.

    Returns:
        The same where its network has no feature map.
    """
    if feature_map_of(trained.model) is None:
        return trained
    compiled = compile_with_weights(lambda members, images: _channel_means(members[0], images), (trained,))

    def means(images: Images) -> np.ndarray:
        some = images[:: math.ceil(len(images) / _MOST_IMAGES)]
        return in_batches(compiled, some, _BATCH_SIZE).astype(np.float64)

    mean, whitening = _gaussian(means(training))
    threshold = np.quantile(np.linalg.norm((means(validation) - mean) @ whitening, axis=1), 1 - REJECTED)
    unlike = {"mean": mean, "whitening": whitening / max(threshold, _TINY)}
    return dataclasses.replace(trained, unlike={name: array.astype(np.float32) for name, array in unlike.items()})


def _gaussian(features: Float[np.ndarray, "n channel"]) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and a matrix that makes the Mahalanobis distance from it a Euclidean one."""
    mean = features.mean(axis=0)
    covariance = (features - mean).T @ (features - mean) / len(features)
    least = _SHRINKAGE * float(np.trace(covariance)) / len(mean) + _TINY
    return mean, np.linalg.cholesky(np.linalg.inv(covariance + least * np.eye(len(mean))))


def foreign_images(size: int, count: int = 100) -> dict[str, UInt8[np.ndarray, "n size size 1"]]:
    """Draw images that no scanner makes, the same ones each time: noise, clouds, and scenes like photographs."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (count, size, size), np.uint8)
    clouds = np.stack([gaussian_filter(random.normal(size=(size, size)), random.uniform(2, size / 10)) for _ in noise])
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    clouds *= 255 / clouds.max(axis=(1, 2), keepdims=True)
    scenes = np.stack([_scene(random, size) for _ in noise])
    sets = {"noise": noise, "clouds": clouds, "scenes": 255 * np.clip(scenes, 0, 1)}
    return {name: np.round(images).astype(np.uint8)[..., np.newaxis] for name, images in sets.items()}


def _scene(random: np.random.Generator, size: int) -> Float[np.ndarray, "size size"]:
    """A sky over rough ground, a sun, and houses with windows; all in [0, 1], but for noise."""
    down, across = np.mgrid[:size, :size] / size
    horizon = random.uniform(0.4, 0.8)
    sky = random.uniform(0.4, 1) + down * random.uniform(-0.4, 0.4)
    scene = np.where(down > horizon, random.uniform(0.1, 0.6) + 0.1 * random.normal(size=(size, size)), sky)
    scene[np.hypot(down - random.uniform(0, 0.4), across - random.uniform()) < random.uniform(0.04, 0.12)] = 1
    for _ in range(random.integers(2, 8)):
        left, top, width = random.uniform(-0.1, 0.9), random.uniform(0.1, horizon), random.uniform(0.1, 0.4)
        house = (abs(across - left) < width / 2) & (down > top) & (down < horizon + 0.05)
        windows = house & (across * 16 % 1 < 0.4) & (down * 16 % 1 < 0.5)
        scene[house], scene[windows] = random.uniform(size=2)
    return scene + 0.02 * random.normal(size=(size, size))
