"""The CPU's own convolutions and their gradients are XLA's, for every shape and under every transformation."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradients import assert_close, values_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxcnn.convolution import manual_conv2d
from jaxcnn.cpu import conv_general_dilated, winograd, xla_only
from jaxcnn.cpu.convolution import MATMUL, PATCHES, WINOGRAD, XLA, choose_method

pytestmark = pytest.mark.optimized
NHWC = ("NHWC", "HWIO", "NHWC")
NO_PADS = ((0, 0), (0, 0))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def ours(x, kernel, padding="SAME", strides=(1, 1), **options):
    return conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC, **options)


def xla(x, kernel, padding="SAME", strides=(1, 1), **options):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC, **options)


def bordered_xla(x, kernel, padding, strides=(1, 1)):
    """XLA's own gradient is wrong in jaxlib 0.10.2 where a border that isn't apart is wider than the kernel reaches."""
    if isinstance(padding, str):
        return xla(x, kernel, padding, strides)
    return xla(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel, "VALID", strides)


@pytest.mark.parametrize("pads", [((2, 0), (1, 3)), ((3, 0), (0, 4)), ((0, 2), (4, 0))])
def test_padding_may_be_wider_than_the_kernel_reaches(pads):
    """The kernel moves over the border alone, where jaxlib 0.10.2 reads memory that belongs to nobody."""
    x, kernel = normal(0, 1, 5, 8, 1), normal(1, 2, 2, 1, 4)
    assert_close(*(values_and_gradients(lambda x, w, f=f: f(x, w, pads), x, kernel) for f in (ours, bordered_xla)))
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), *pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), axis=(1, 2))
    expected = np.einsum("bhwcij,ijco->bhwo", windows, np.asarray(kernel, np.float64))
    np.testing.assert_allclose(jax.jit(partial(ours, padding=pads))(x, kernel), expected, atol=1e-5)


@pytest.mark.slow
@settings(deadline=None, max_examples=4)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.sampled_from([1, 1, 2]),
    padding=st.sampled_from(["SAME", "VALID", [(2, 0), (1, 3)]]),
)
def test_value_and_both_gradients_are_xla_s(batch, size, kernel, channels, stride, padding):
    arguments = normal(0, batch, *size, channels[0]), normal(1, *kernel, *channels)
    found, expected = (
        values_and_gradients(lambda x, w, f=f: f(x, w, padding, (stride, stride)), *arguments)
        for f in (ours, bordered_xla)
    )
    assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "padding"),
    [
        # The last tiles reach beyond the border, in one direction or in both, and the batch fills no whole chunks.
        pytest.param((3, 45, 30, 16), (5, 5, 16, 17), [(2, 2), (2, 2)], id="5x5"),
        pytest.param((2, 21, 19, 17), (3, 3, 17, 16), "VALID", id="3x3"),
        pytest.param((9, 8, 8, 16), (3, 5, 16, 16), [(0, 2), (4, 1)], id="3x5, padded unevenly"),
        pytest.param((4, 8, 8, 16), (3, 3, 16, 16), "SAME", id="small tiles"),
    ],
)
def test_winograd_s_value_and_both_gradients_are_xla_s(x_shape, kernel_shape, padding):
    arguments = normal(0, *x_shape), normal(1, *kernel_shape)
    pads = (
        padding if isinstance(padding, list) else lax.padtype_to_pads(x_shape[1:3], kernel_shape[:2], (1, 1), padding)
    )
    assert choose_method(x_shape, kernel_shape, tuple(pads)) is WINOGRAD
    found, expected = (values_and_gradients(lambda x, w, f=f: f(x, w, padding), *arguments) for f in (ours, xla))
    assert_close(found, expected)


@pytest.mark.parametrize("padding", [((-1, -1), (-1, -1)), ((0, 2), (1, -1))], ids=str)
def test_where_the_border_is_cut_off_value_and_both_gradients_are_xla_s(padding):
    arguments = normal(0, 2, 7, 6, 2), normal(1, 3, 2, 2, 3)
    found, expected = (values_and_gradients(lambda x, w, f=f: f(x, w, padding), *arguments) for f in (ours, xla))
    assert_close(found, expected)


@pytest.mark.parametrize("size", [3, 5])
def test_winograd_is_the_definition_s_convolution(size):
    image, kernel = normal(0, 37, 41), normal(1, size, size)
    # One channel of many that are 0, since with few channels another method is taken.
    x = jnp.zeros((1, 37, 41, 16)).at[0, :, :, 3].set(image)
    weights = jnp.zeros((size, size, 16, 16)).at[:, :, 3, 5].set(kernel[::-1, ::-1])
    found = ours(x, weights)
    expected = manual_conv2d(image, kernel)
    np.testing.assert_allclose(found[0, :, :, 5], expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(found[..., :5], 0)


@pytest.mark.parametrize(("outputs", "taps"), [(4, 3), (4, 5), (2, 3), (2, 5), (1, 3), (3, 1)])
def test_the_transforms_filter_exactly_in_float64(outputs, taps):
    matrices = winograd.transforms(outputs, taps)
    random = np.random.default_rng(0)
    signal, taps_ = random.normal(size=outputs + taps - 1), random.normal(size=taps)
    found = matrices.output @ ((matrices.kernel @ taps_) * (matrices.input @ signal))
    np.testing.assert_allclose(found, np.correlate(signal, taps_, "valid"), rtol=1e-12, atol=1e-12)


def test_more_points_than_there_are_is_an_error_that_says_how_many():
    with pytest.raises(ValueError, match=r"F\(4, 7\) needs 10 points, must be 3 to 8"):
        winograd.transforms(4, 7)


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "pads", "method"),
    [
        pytest.param((16, 59, 59, 64), (5, 5, 64, 128), ((2, 2), (2, 2)), WINOGRAD, id="SimpleCNN residual_conv"),
        pytest.param((16, 128, 128, 1), (3, 3, 1, 32), NO_PADS, PATCHES, id="SimpleCNN conv1"),
        pytest.param((16, 59, 59, 64), (1, 1, 64, 128), NO_PADS, MATMUL, id="SimpleCNN shortcut"),
        pytest.param((16, 8, 8, 512), (8, 8, 512, 256), NO_PADS, MATMUL, id="UNetClassifier conv"),
        pytest.param((16, 8, 8, 256), (3, 3, 256, 512), ((1, 1), (1, 1)), WINOGRAD, id="U-Net bottleneck"),
        pytest.param((1, 8, 8, 256), (3, 3, 256, 512), ((1, 1), (1, 1)), PATCHES, id="too few tiles"),
        pytest.param((16, 59, 59, 64), (7, 7, 64, 64), NO_PADS, PATCHES, id="7x7"),
        pytest.param((16, 59, 59, 64), (3, 3, 64, 64), ((3, 3), (0, 0)), PATCHES, id="padded by more than the kernel"),
        pytest.param((16, 2, 2, 64), (3, 3, 64, 64), NO_PADS, XLA, id="kernel larger than the image"),
        pytest.param((16, 59, 59, 64), (3, 3, 64, 64), ((0, 0), (1, -1)), XLA, id="border cut off"),
    ],
)
def test_the_rule(x_shape, kernel_shape, pads, method):
    assert choose_method(x_shape, kernel_shape, pads) is method


@pytest.mark.parametrize(
    "options",
    [
        {"strides": (2, 2)},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1), "padding": ((1, 1), (0, 2))},
        {"feature_group_count": 2},
        {"precision": lax.Precision.HIGHEST},
        {"preferred_element_type": jnp.float32},
    ],
    ids=str,
)
def test_what_is_no_plain_convolution_is_xla_s_to_the_bit(options):
    kernel = normal(1, 3, 3, 32 // options.get("feature_group_count", 1), 16)
    x = normal(0, 2, 16, 16, 32)
    np.testing.assert_array_equal(ours(x, kernel, **options), xla(x, kernel, **options))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_other_dtypes_are_xla_s_to_the_bit(dtype):
    arguments = normal(0, 2, 16, 16, 16).astype(dtype), normal(1, 3, 3, 16, 16).astype(dtype)
    np.testing.assert_array_equal(ours(*arguments), xla(*arguments))


def test_a_layout_that_is_not_nhwc_is_xla_s():
    x, kernel = normal(0, 2, 16, 20, 24), normal(1, 16, 16, 3, 3)
    found = conv_general_dilated(x, kernel, (1, 1), "SAME")
    np.testing.assert_array_equal(found, lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))


@pytest.mark.parametrize(
    "kernel_shape",
    [
        pytest.param((1, 1, 3, 5), id="matmul, 1x1"),
        pytest.param((8, 8, 3, 5), id="matmul, as large as the image"),
        pytest.param((3, 3, 3, 5), id="patches"),
        pytest.param((3, 3, 32, 16), id="winograd"),
    ],
)
def test_channels_that_do_not_fit_are_lax_s_error(kernel_shape):
    """A matrix product takes six channels for two pixels of three."""
    x, kernel = normal(0, 2, 8, 8, 6), normal(1, *kernel_shape)
    with pytest.raises(ValueError, match="feature dimension") as expected:
        xla(x, kernel, "VALID")
    for convolve in (ours, jax.jit(ours, static_argnums=2)):
        with pytest.raises(ValueError, match="feature dimension") as found:
            convolve(x, kernel, "VALID")
        assert str(found.value) == str(expected.value)


@pytest.mark.slow
def test_a_precision_around_the_call_or_the_switch_give_xla_s_to_the_bit():
    arguments = normal(0, 2, 32, 32, 16), normal(1, 5, 5, 16, 16)
    expected = np.asarray(xla(*arguments))
    assert np.any(np.asarray(ours(*arguments)) != expected)
    with jax.default_matmul_precision("highest"):
        np.testing.assert_array_equal(ours(*arguments), expected)
    with xla_only():
        np.testing.assert_array_equal(ours(*arguments), expected)
    assert np.any(np.asarray(ours(*arguments)) != expected)


@pytest.mark.slow
def test_a_gradient_that_nobody_asks_for_is_not_computed():
    x, kernel = normal(0, 8, 32, 32, 16), normal(1, 3, 3, 16, 16)

    def flops(arguments):
        gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sum(ours(x, kernel) ** 2), argnums=arguments))
        return gradient.lower(x, kernel).compile().cost_analysis()["flops"]

    assert flops((1,)) < 0.8 * flops((0, 1))
    assert flops((0,)) < 0.8 * flops((0, 1))


@pytest.mark.slow
def test_rematerialised_the_gradients_are_the_same():
    x, kernel = normal(0, 2, 32, 32, 16), normal(1, 3, 3, 16, 16)
    plain, again = (values_and_gradients(f, x, kernel) for f in (ours, jax.checkpoint(ours)))
    assert_close(again, plain, tolerance=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel_shape",
    [
        pytest.param((3, 3, 16, 16), id="winograd"),
        pytest.param((1, 1, 16, 3), id="matmul"),
        pytest.param((2, 3, 16, 3), id="patches"),
    ],
)
def test_several_models_can_be_mapped_over_each_with_its_own_images(kernel_shape):
    x, kernels = normal(0, 2, 2, 24, 24, 16), normal(1, 2, *kernel_shape)

    def one_by_one(x, kernels):
        return jnp.stack([xla(*each) for each in zip(x, kernels, strict=True)])

    found, expected = (values_and_gradients(f, x, kernels) for f in (jax.vmap(ours), one_by_one))
    assert_close(found, expected)


@pytest.mark.parametrize(
    "kernel_shape",
    [
        pytest.param((3, 3, 16, 16), id="winograd"),
        pytest.param((1, 1, 16, 3), id="matmul"),
        pytest.param((2, 3, 16, 3), id="patches"),
    ],
)
def test_the_batch_may_be_spread_over_devices(kernel_shape):
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("one device")
    x, kernel = normal(0, 4 * len(devices), 12, 12, 16), normal(1, *kernel_shape)
    expected = values_and_gradients(xla, x, kernel)
    mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    spread = jax.device_put(x, jax.NamedSharding(mesh, P("batch")))
    assert_close(values_and_gradients(ours, spread, jax.device_put(kernel, jax.NamedSharding(mesh, P()))), expected)

    by_shard = jax.shard_map(ours, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"))
    assert_close(values_and_gradients(by_shard, x, kernel), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel_shape",
    [
        pytest.param((5, 5, 16, 16), id="winograd"),
        pytest.param((1, 1, 16, 3), id="matmul"),
        pytest.param((2, 3, 16, 3), id="patches"),
    ],
)
def test_forwards_and_forwards_over_backwards_the_derivatives_are_xla_s(kernel_shape):
    arguments = normal(0, 2, 24, 24, 16), normal(1, *kernel_shape) / 10
    tangents = normal(2, 2, 24, 24, 16), normal(3, *kernel_shape) / 10

    @partial(jax.jit, static_argnums=0)
    def derivatives(convolve):
        gradient = jax.grad(lambda x, kernel: jnp.mean(convolve(x, kernel) ** 3), (0, 1))
        return *jax.jvp(convolve, arguments, tangents), *jax.jvp(gradient, arguments, tangents)[1]

    assert_close(derivatives(ours), derivatives(xla), tolerance=2e-4)


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_other_devices_get_the_very_program_of_xla_s_own_convolution(platform):
    x, kernel, dy = normal(0, 4, 12, 12, 16), normal(1, 3, 3, 16, 16), normal(2, 4, 12, 12, 16)

    def program(convolve):
        @jax.jit
        def derivatives(x, kernel, dy):
            y, pull = jax.vjp(convolve, x, kernel)
            return y, *pull(dy), *jax.jvp(convolve, (x, kernel), (dy, kernel))

        return derivatives.trace(x, kernel, dy).lower(lowering_platforms=(platform,)).as_text()

    assert program(ours) == program(xla)
    assert "stablehlo.convolution" in program(ours)


@pytest.mark.slow
def test_on_two_devices_the_batch_is_spread():
    """The number of devices is fixed when JAX starts: the test before, in a process that has two."""
    tests = [__file__, "-k", "may_be_spread_over_devices", "-p", "no:cacheprovider"]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *tests], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout
