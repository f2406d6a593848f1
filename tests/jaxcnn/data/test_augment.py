"""Augmentation stays within its strengths and fills them, and an image's changes are a matter of its key alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, optimize, stats

from jaxcnn.data.augment import BRAIN_MRI, Augmentation
from jaxcnn.models.example_keys import example_places, keys_at

EVERYTHING = dataclasses.replace(BRAIN_MRI, vertical_flip=0.5)

# Compiled as a whole: operation by operation, with a compilation for each, takes ten times as long.
augmented = jax.jit(lambda keys, images, augmentation: augmentation(keys, images), static_argnums=2)


def keys(count, seed=0):
    return keys_at(jax.random.key(seed), example_places(count))


def random_images(count=8, size=24):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(count, size, size, 1)), jnp.float32)


def smooth_image(size=32):
    noise = np.random.default_rng(0).uniform(size=(size, size))
    smooth = ndimage.gaussian_filter(noise, 1, mode="constant")
    return smooth / smooth.max()


def augmented_copies(image, count, **strengths):
    images = jnp.broadcast_to(jnp.asarray(image, jnp.float32)[..., None], (count, *image.shape, 1))
    return np.asarray(augmented(keys(count), images, Augmentation(**strengths)))[..., 0]


def assert_uniform(numbers, low, high):
    """The numbers stay in the range, and Kolmogorov and Smirnov have nothing to say against their distribution."""
    assert low <= numbers.min()
    assert numbers.max() <= high
    assert stats.kstest(numbers, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_the_default_changes_no_bit():
    images = random_images()
    np.testing.assert_array_equal(Augmentation()(keys(8), images), images)


def test_steps_that_are_off_are_not_in_the_program():
    images = random_images()
    assert not jax.make_jaxpr(Augmentation())(keys(8), images).eqns
    brighter = str(jax.make_jaxpr(Augmentation(brightness=0.1))(keys(8), images))
    for step in ("gather", "dot_general", "pow", "erf_inv", "sort"):
        assert step not in brighter


@pytest.mark.slow
def test_a_step_draws_the_same_with_and_without_the_others():
    plain = augmented_copies(smooth_image(), 8, horizontal_flip=0.5)
    noisy = augmented_copies(smooth_image(), 8, horizontal_flip=0.5, noise=1e-3)
    np.testing.assert_allclose(plain, noisy, atol=0.01)


@pytest.mark.slow
def test_geometry_is_drawn_uniformly_up_to_its_strengths():
    """Of a plane that rises to the right one sees at the centre how it was turned, enlarged and shifted."""
    size, slope = 33, 1e-2
    plane = 0.5 + slope * np.broadcast_to(np.arange(size) - size // 2, (size, size))
    copies = augmented_copies(plane, 1000, rotation=30, zoom=0.25, shift=0.1)
    middle = size // 2
    down = (copies[:, middle + 1, middle] - copies[:, middle - 1, middle]) / (2 * slope)
    right = (copies[:, middle, middle + 1] - copies[:, middle, middle - 1]) / (2 * slope)
    gain = np.hypot(down, right)
    # Counterclockwise on the screen, where rows go down: what rose to the right rises upwards.
    assert_uniform(np.rad2deg(np.arctan2(-down, right)), -30.01, 30.01)
    assert_uniform(np.log(1 / gain), -np.log(1.25) - 1e-4, np.log(1.25) + 1e-4)
    shifted = (0.5 - copies[:, middle, middle]) / slope / size
    # Both shifts take part in this one, by the cosine and sine of the angle.
    assert np.abs(shifted).max() < 1.25 * np.hypot(0.1, 0.1)
    assert abs(shifted.mean()) < 4 * shifted.std() / np.sqrt(1000)


@pytest.mark.slow
def test_a_stretched_image_is_wider_and_lower_by_the_same_factor():
    size, slope = 33, 1e-2
    rising = slope * (np.arange(size) - size // 2)
    copies = augmented_copies(0.5 + rising[:, None] + rising, 1000, stretch=0.2)
    middle = size // 2
    down = (copies[:, middle + 1, middle] - copies[:, middle - 1, middle]) / (2 * slope)
    right = (copies[:, middle, middle + 1] - copies[:, middle, middle - 1]) / (2 * slope)
    np.testing.assert_allclose(down * right, 1, atol=1e-4)
    assert_uniform(np.log(down / right), -np.log(1.2) - 1e-4, np.log(1.2) + 1e-4)


@pytest.mark.slow
def test_flips_are_as_frequent_as_asked():
    image = smooth_image()
    copies = augmented_copies(image, 1000, horizontal_flip=0.3, vertical_flip=0.1)
    seen = {
        (rows, columns): np.mean([np.array_equal(copy, image[::rows, ::columns].astype(np.float32)) for copy in copies])
        for rows in (1, -1)
        for columns in (1, -1)
    }
    expected = {(1, 1): 0.63, (1, -1): 0.27, (-1, 1): 0.07, (-1, -1): 0.03}
    for flips, probability in expected.items():
        assert abs(seen[flips] - probability) < 4 * np.sqrt(probability * (1 - probability) / 1000)
    assert sum(seen.values()) == pytest.approx(1)


@pytest.mark.slow
def test_intensities_change_by_the_formulas():
    image = 0.2 + 0.5 * smooth_image()
    mean = image.mean()
    copies = augmented_copies(image, 500, brightness=0.2)
    factors = copies.mean(axis=(1, 2)) / mean
    np.testing.assert_allclose(copies, factors[:, None, None] * image, atol=1e-5)
    assert_uniform(factors, 0.7999, 1.2001)

    copies = augmented_copies(image, 500, contrast=0.2)
    factors = copies.std(axis=(1, 2)) / image.std()
    np.testing.assert_allclose(copies, mean + factors[:, None, None] * (image - mean), atol=1e-5)
    assert_uniform(factors, 0.7999, 1.2001)

    copies = augmented_copies(image, 500, gamma=0.3)
    exponents = np.log(copies[:, 0, 0]) / np.log(image[0, 0])
    np.testing.assert_allclose(copies, image ** exponents[:, None, None], atol=1e-5)
    assert_uniform(np.log(exponents), -np.log(1.3) - 1e-4, np.log(1.3) + 1e-4)


def test_a_grey_curve_is_drawn_anew_between_black_and_white():
    """Of a ramp one sees the curve itself: straight between its five points, the first of them black."""
    ramp = np.linspace(0, 1, 33)[:, None].repeat(3, axis=1)
    curves = augmented_copies(ramp, 1000, curve=1.0)[:, :, 1]
    points = curves[:, ::8]
    between = np.stack([np.interp(ramp[:, 0], ramp[::8, 0], of) for of in points])
    np.testing.assert_allclose(curves, between, atol=1e-5)
    np.testing.assert_array_equal(points[:, 0], 0)
    # w u + (1 - w) x, with w and u uniform: between 0 and 1, and halfway from x to 1/2 by half, on average.
    assert 0 <= curves.min() <= curves.max() <= 1
    for x, heights in zip((0.25, 0.5, 0.75, 1.0), points[:, 1:].T, strict=True):
        assert abs(heights.mean() - (x + (0.5 - x) / 2)) < 4 * heights.std() / np.sqrt(1000)
    assert (np.diff(points, axis=1) < 0).any(axis=1).mean() > 0.3  # Some tissues change places.


@pytest.mark.slow
def test_a_weak_curve_changes_little():
    image = smooth_image()
    assert np.abs(augmented_copies(image, 50, curve=0.1) - image).max() <= 0.1 + 1e-6


@pytest.mark.slow
def test_blur_is_a_gaussian_filter():
    """Some deviation up to the strength makes SciPy's filter give the same image."""
    image = smooth_image()
    weights = np.ones_like(image)

    def filtered(deviation):
        # Weights that add up to 1 near the border as well.
        blurred, total = (ndimage.gaussian_filter(x, deviation, mode="constant", truncate=8) for x in (image, weights))
        return blurred / total

    deviations = []
    for copy in augmented_copies(image, 20, blur=1.5):
        fit = optimize.minimize_scalar(
            lambda deviation, copy=copy: np.abs(filtered(deviation) - copy).max(), bounds=(0.01, 2), method="bounded"
        )
        assert fit.fun < 1e-3
        deviations.append(fit.x)
    assert 0 < min(deviations) < 0.4
    assert 1.1 < max(deviations) <= 1.51


@pytest.mark.slow
def test_noise_is_white_and_as_strong_as_asked():
    copies = augmented_copies(np.full((64, 64), 0.5), 300, noise=0.05) - 0.5
    assert_uniform(copies.std(axis=(1, 2)), -0.001, 0.0515)
    standard = (copies / copies.std(axis=(1, 2), keepdims=True)).reshape(300, -1)
    assert stats.kstest(standard.ravel()[::50], stats.norm.cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(standard[:30])[~np.eye(30, dtype=bool)]).max() < 5 / 64


@pytest.mark.slow
def test_an_image_in_a_batch_is_what_it_is_among_others_and_elsewhere():
    images = random_images()
    expected = np.asarray(augmented(keys(8), images, EVERYTHING))
    among_others = augmented(keys(8), images.at[1:].set(0.5), EVERYTHING)
    np.testing.assert_array_equal(among_others[0], expected[0])
    order = np.array([4, 2, 0, 5, 7, 3, 6, 1])
    np.testing.assert_array_equal(augmented(keys(8)[order], images[order], EVERYTHING), expected[order])


@pytest.mark.slow
def test_a_batch_over_devices_and_under_vmap_is_changed_as_on_one():
    images, runs = random_images(), jax.random.split(jax.random.key(0), 2)

    def share(run, images):
        return EVERYTHING(keys_at(run, example_places(len(images), "devices")), images)

    over_devices = jax.vmap(share, in_axes=(None, 0), axis_name="devices")
    over_models = jax.jit(jax.vmap(over_devices, in_axes=(0, None)))
    spread = np.asarray(over_models(runs, images.reshape(4, 2, *images.shape[1:])))
    for run, changed in zip(runs, spread, strict=True):
        expected = augmented(keys_at(run, example_places(8)), images, EVERYTHING)
        # XLA may round otherwise in a program of other shapes.
        np.testing.assert_allclose(changed.reshape(images.shape), expected, atol=1e-5)


@pytest.mark.slow
def test_slices_stay_images():
    """The strongest changes keep values in [0, 1]; the recommended ones keep a head in its place."""
    y, x = np.mgrid[-12:12, -12:12]
    head = np.where((y / 10) ** 2 + (x / 8) ** 2 < 1, 0.3 + 0.4 * smooth_image(24), 0)
    images = jnp.broadcast_to(jnp.asarray(head, jnp.float32)[..., None], (8, 24, 24, 1))
    wild = Augmentation(0.5, 0.5, 180, 1, 0.5, 0.5, 1, 1, 3, 1, 3, 1)
    changed = np.asarray(augmented(keys(8), images, wild))
    assert changed.dtype == np.float32
    assert 0 <= changed.min() <= changed.max() <= 1
    changed = np.asarray(augmented(keys(8), images, dataclasses.replace(BRAIN_MRI, horizontal_flip=0)))
    for image, other in zip(np.asarray(images), changed, strict=True):
        assert 0.6 < np.corrcoef(image.ravel(), other.ravel())[0, 1] < 0.9999


@pytest.mark.parametrize(
    ("name", "strength"), [("rotation", -1), ("horizontal_flip", 1.5), ("noise", float("nan")), ("zoom", float("inf"))]
)
def test_what_is_no_strength_is_refused(name, strength):
    with pytest.raises(ValueError, match=f"{name}.*{strength}"):
        Augmentation(**{name: strength})
