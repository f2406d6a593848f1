import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.signal import convolve2d
from scipy.signal.windows import gaussian

from jaxcnn.convolution import conv2d, gaussian_kernel, horizontal_edge_kernel, manual_conv2d, sharpening_kernel
from jaxcnn.convolution.check import tolerance

image_shapes = st.tuples(st.integers(1, 17), st.integers(1, 17))
odd = st.integers(0, 5).map(lambda half: 2 * half + 1)
kernel_shapes = st.tuples(odd, odd)
seeds = st.integers(0, 2**32 - 1)

pytestmark = pytest.mark.optimized


def draw(seed, *shapes, dtype=np.float64):
    """Random arrays; integers from -100 to 100, and normal numbers of all other types."""
    random = np.random.default_rng(seed)
    if jnp.issubdtype(dtype, jnp.integer):
        return [random.integers(-100, 101, shape).astype(dtype) for shape in shapes]
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_is_convolution(result, image, kernel, dtype=np.float64):
    """Compare with SciPy, under the bound for sums of as many products as the kernel has elements."""
    image, kernel = np.asarray(image, np.float64), np.asarray(kernel, np.float64)
    expected = convolve2d(image, kernel, mode="same")
    bound = tolerance(kernel.size, dtype) * convolve2d(np.abs(image), np.abs(kernel), mode="same")
    assert result.shape == image.shape
    assert (np.abs(np.asarray(result, np.float64) - expected) <= bound).all()


@pytest.fixture
def no_shape_checks(monkeypatch):
    """As for a user: the tests' own run-time check of the signatures would refuse a bad argument first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# --- Against SciPy ----------------------------------------------------------------------------------------------


@given(image_shapes, kernel_shapes, seeds)
def test_the_definition_is_scipys_convolution(image_shape, kernel_shape, seed):
    image, kernel = draw(seed, image_shape, kernel_shape)
    result = manual_conv2d(image, kernel)
    assert result.dtype == np.float64
    assert_is_convolution(result, image, kernel)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@settings(max_examples=20, deadline=None)
@given(image_shapes, kernel_shapes, seeds)
def test_conv2d_is_scipys_convolution(dtype, image_shape, kernel_shape, seed):
    image, kernel = draw(seed, image_shape, kernel_shape, dtype=dtype)
    result = jax.jit(conv2d)(image, kernel)
    assert result.dtype == dtype
    assert_is_convolution(result, image, kernel, dtype)
    assert_is_convolution(manual_conv2d(image, kernel), image, kernel)


@settings(max_examples=20, deadline=None)
@given(image_shapes, kernel_shapes, seeds)
def test_conv2d_is_scipys_convolution_in_float64(image_shape, kernel_shape, seed):
    image, kernel = draw(seed, image_shape, kernel_shape)
    with jax.enable_x64(True):
        result = jax.jit(conv2d)(image, kernel)
    assert result.dtype == np.float64
    assert_is_convolution(result, image, kernel)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64])
@settings(max_examples=5, deadline=None)
@given(image_shapes, kernel_shapes, seeds)
def test_integer_images_are_converted_to_float32(dtype, image_shape, kernel_shape, seed):
    (image,) = draw(seed, image_shape, dtype=dtype)
    (kernel,) = draw(seed, kernel_shape, dtype=np.float32)
    result = jax.jit(conv2d)(image, kernel)
    assert result.dtype == np.float32
    assert_is_convolution(result, image, kernel, np.float32)
    assert_is_convolution(manual_conv2d(image, kernel), image, kernel)


def test_integers_beyond_32_bits_do_not_wrap():
    image = np.array([[2**40]])
    assert conv2d(image, np.ones((1, 1)))[0, 0] == 2.0**40
    assert manual_conv2d(image, np.ones((1, 1)))[0, 0] == 2.0**40


# --- What a convolution is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("convolve", [manual_conv2d, conv2d])
def test_a_bright_pixel_becomes_the_kernel(convolve):
    image = np.zeros((7, 9))
    image[3, 4] = 1
    kernel = np.arange(15.0).reshape(3, 5)
    expected = np.zeros((7, 9))
    expected[2:5, 2:7] = kernel
    np.testing.assert_array_equal(convolve(image, kernel), expected)


@pytest.mark.parametrize("convolve", [manual_conv2d, conv2d])
def test_a_kernel_larger_than_the_image_meets_zeros(convolve):
    kernel = np.arange(35.0).reshape(5, 7)
    np.testing.assert_array_equal(convolve(np.array([[2.0]]), kernel), [[2 * kernel[2, 3]]])


def test_half_the_plane_bright_shows_the_sign_of_an_edge():
    image = np.zeros((9, 9))
    image[:4] = 1
    response = manual_conv2d(image, horizontal_edge_kernel(3))
    # Away from the borders: positive where it is brighter above, zero where nothing changes.
    np.testing.assert_array_equal(response[1:8, 4], [0, 0, 3, 3, 0, 0, 0])


# --- As a JAX function ------------------------------------------------------------------------------------------


def test_a_batch_is_its_images_one_by_one_and_so_is_vmap():
    images, kernel = draw(0, (4, 12, 10), (3, 5), dtype=np.float32)
    for result in (conv2d(images, kernel), jax.vmap(conv2d, (0, None))(images, kernel)):
        for convolved, image in zip(result, images, strict=True):
            assert_is_convolution(convolved, image, kernel, np.float32)


def test_vmap_over_kernels_is_a_filter_bank():
    image, kernels = draw(1, (12, 10), (4, 3, 5), dtype=np.float32)
    for convolved, kernel in zip(jax.vmap(conv2d, (None, 0))(image, kernels), kernels, strict=True):
        assert_is_convolution(convolved, image, kernel, np.float32)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), kernel_shapes, seeds)
def test_an_output_channel_is_the_sum_of_the_input_channels_convolutions(batch, inputs, outputs, kernel_shape, seed):
    images, kernels = draw(seed, (batch, 6, 8, inputs), (*kernel_shape, inputs, outputs), dtype=np.float32)

    def sum_over_inputs(image, kernel):
        return sum(manual_conv2d(image[..., c], kernel[..., c]) for c in range(inputs))

    result = jax.jit(conv2d)(images, kernels)
    assert result.shape == (batch, 6, 8, outputs)
    limit = tolerance(kernels[..., 0].size, np.float32)
    for image, convolved in zip(images, np.asarray(result), strict=True):
        for out in range(outputs):
            difference = np.abs(convolved[..., out] - sum_over_inputs(image, kernels[..., out]))
            assert (difference <= limit * sum_over_inputs(np.abs(image), np.abs(kernels[..., out]))).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image_shape", "kernel_shape"),
    [((5, 6), (3, 3)), ((2, 3), (5, 7)), ((2, 5, 6), (3, 5)), ((2, 5, 6, 3), (3, 1, 3, 2))],
)
def test_gradients_are_those_of_finite_differences(image_shape, kernel_shape):
    with jax.enable_x64(True):
        check_grads(conv2d, draw(2, image_shape, kernel_shape), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_with_respect_to_the_image_is_the_correlation(dtype):
    image, kernel, cotangent = map(jnp.asarray, draw(3, (8, 9), (3, 5), (8, 9), dtype=dtype))
    (gradient,) = jax.vjp(lambda image: conv2d(image, kernel), image)[1](cotangent)
    assert gradient.dtype == dtype
    assert_is_convolution(gradient, cotangent, kernel[::-1, ::-1], dtype)


def test_the_kernel_follows_the_images_dtype():
    image = jnp.ones((4, 4), jnp.bfloat16)
    assert conv2d(image, gaussian_kernel(3)).dtype == jnp.bfloat16
    assert conv2d(image.astype(jnp.float32), jnp.ones((3, 3), jnp.bfloat16)).dtype == jnp.float32


# --- Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("convolve", [manual_conv2d, conv2d, jax.jit(conv2d)])
@pytest.mark.parametrize(
    ("image", "kernel", "message"),
    [
        (np.ones((8, 8)), np.ones((4, 3)), "odd and positive.* got 4"),
        (np.ones((8, 8)), np.ones((3, 2)), "odd and positive.* got 2"),
        (np.ones((8, 8)), np.ones((0, 3)), "odd and positive.* got 0"),
        (np.ones((8, 8)), np.ones((0, 0)), "odd and positive.* got 0"),
        (np.ones(8), np.ones((3, 3)), r"\(8,\)"),
        (np.ones((8, 8)), np.ones(3), r"\(3,\)"),
        (np.ones((8, 8, 3, 1)), np.ones((3, 3)), r"\(8, 8, 3, 1\)"),
        (np.ones((8, 8), np.complex64), np.ones((3, 3)), "image: real numbers .* complex64"),
        (np.ones((8, 8)), np.ones((3, 3), np.complex64), "kernel: real numbers .* complex64"),
    ],
)
def test_bad_arrays_are_refused_with_what_is_wrong(convolve, image, kernel, message):
    with pytest.raises(ValueError, match=message):
        convolve(image, kernel)


@pytest.mark.usefixtures("no_shape_checks")
def test_channels_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 8, 8, 3\) and kernel \(3, 3, 2, 5\)"):
        conv2d(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 2, 5)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_definition_refuses_values_that_are_not_finite(value):
    bad, good = np.ones((5, 5)), np.ones((3, 3))
    bad[1, 2] = value
    with pytest.raises(ValueError, match=rf"image: .* got {value} at \[1, 2\]"):
        manual_conv2d(bad, good)
    with pytest.raises(ValueError, match=rf"kernel: .* got {value} at \[1, 2\]"):
        manual_conv2d(good, bad)


def test_conv2d_lets_nan_through_to_the_pixels_that_see_it():
    image = np.zeros((7, 7))
    image[3, 3] = np.nan
    expected = np.zeros((7, 7), bool)
    expected[2:5, 2:5] = True
    np.testing.assert_array_equal(jnp.isnan(conv2d(image, np.ones((3, 3)))), expected)


# --- The kernels ------------------------------------------------------------------------------------------------


def test_the_kernels_of_the_text():
    np.testing.assert_array_equal(horizontal_edge_kernel(5), np.outer([-2, -1, 0, 1, 2], np.ones(5)))
    np.testing.assert_array_equal(sharpening_kernel(3), [[-1, -1, -1], [-1, 4, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(gaussian_kernel(1), [[1]])


@given(odd, st.floats(0.1, 10))
def test_the_gaussian_is_the_product_of_two_windows(k, sigma):
    window = gaussian(k, sigma)
    np.testing.assert_allclose(gaussian_kernel(k, sigma), np.outer(window, window), rtol=1e-12, atol=1e-300)


@given(odd)
def test_what_the_kernels_do_to_a_flat_image(k):
    assert horizontal_edge_kernel(k).sum() == 0
    assert sharpening_kernel(k).sum() == -2 * (k - 1)
    assert gaussian_kernel(k).max() == gaussian_kernel(k)[k // 2, k // 2] == 1


@pytest.mark.parametrize("make_kernel", [horizontal_edge_kernel, gaussian_kernel, sharpening_kernel])
@pytest.mark.parametrize("k", [-3, 0, 2, 10])
def test_even_sizes_are_refused(make_kernel, k):
    with pytest.raises(ValueError, match=f"odd and positive.* got {k}"):
        make_kernel(k)


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan])
def test_a_sigma_that_is_not_positive_is_refused(sigma):
    with pytest.raises(ValueError, match=f"sigma must be positive, got {sigma}"):
        gaussian_kernel(3, sigma)
