import dataclasses
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.convolution import check, conv2d
from jaxcnn.convolution.__main__ import main
from jaxcnn.convolution.check import check_kernels, compare_kernel, manual_conv_layer, record_layer, tolerance

KERNELS = [*["edge"] * 3, *["gaussian"] * 3, *["sharpening"] * 3, "random"]
LINES = len(KERNELS) + 1  # and the layer


class TwoLayers(nn.Module):
    """The beginning of a SimpleCNN, narrow."""

    @nn.compact
    def __call__(self, images, *, train):
        assert not train
        x = nn.relu(nn.Conv(3, (3, 3), padding="VALID", name="conv1")(images))
        return nn.relu(nn.Conv(4, (5, 5), padding="VALID", name="conv2")(x))


@pytest.fixture
def small(monkeypatch):
    """A small network and a random picture: the real ones take longer to compile than the check takes."""
    images = np.random.default_rng(0).integers(0, 256, (1, 20, 20, 1), np.uint8)
    monkeypatch.setattr(check, "SimpleCNN", TwoLayers)
    monkeypatch.setattr(check, "phantom_images", lambda _seed, indices: (images, indices))


def run_command(monkeypatch, *arguments):
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["convolution", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def verdicts(printed):
    """The last column of the table, by kernel and size."""
    lines = [line.split() for line in printed.splitlines() if line.endswith(("yes", "NO"))]
    return {" ".join(words[:2]): words[-1] for words in lines}


# --- The command ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_as_a_user_runs_it():
    done = subprocess.run([sys.executable, "-m", "jaxcnn.convolution"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(verdicts(done.stdout).values()) == ["yes"] * LINES
    assert "5x5x32x64" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_command_passes_a_right_convolution(monkeypatch, capsys):
    assert run_command(monkeypatch) == 0
    printed = capsys.readouterr().out
    assert list(verdicts(printed).values()) == ["yes"] * LINES
    assert "none of 11 over the tolerance" in printed


def correlate(image, kernel):
    return conv2d(image, kernel[::-1, ::-1])


def forget_to_flip_columns(image, kernel):
    return conv2d(image, kernel[:, ::-1])


def shift_by_one_pixel(image, kernel):
    return jnp.roll(conv2d(image, kernel), 1, axis=0)


def leave_the_border_unwritten(image, kernel):
    return jnp.zeros_like(image).at[1:-1, 1:-1].set(conv2d(image, kernel)[1:-1, 1:-1])


def compute_in_bfloat16(image, kernel):
    return conv2d(image.astype(jnp.bfloat16), kernel).astype(image.dtype)


def give_nan_at_one_pixel(image, kernel):
    return conv2d(image, kernel).at[5, 5].set(jnp.nan)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "failing"),
    [
        (correlate, ["edge", "edge", "edge", "random"]),  # the others are symmetric
        (forget_to_flip_columns, ["random"]),
        (shift_by_one_pixel, KERNELS),
        (leave_the_border_unwritten, KERNELS),
        (compute_in_bfloat16, KERNELS),
        (give_nan_at_one_pixel, KERNELS),
    ],
)
def test_a_wrong_convolution_is_over_the_tolerance(monkeypatch, wrong, failing):
    monkeypatch.setattr(check, "conv2d", wrong)
    image = np.random.default_rng(0).random((16, 20), np.float32)
    found = [compare_kernel(name, kernel, "random", image) for name, kernel in check_kernels()]
    assert [comparison.kernel for comparison in found if not comparison.ok] == failing


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_command_fails_when_anything_is_over_the_tolerance(monkeypatch, capsys):
    def record_rounded_layer(*arguments):
        call = record_layer(*arguments)
        return dataclasses.replace(call, outputs=call.outputs.astype(jnp.bfloat16).astype(jnp.float32))

    monkeypatch.setattr(check, "conv2d", correlate)
    monkeypatch.setattr(check, "record_layer", record_rounded_layer)
    assert run_command(monkeypatch) == 1
    printed = capsys.readouterr().out
    failing = [name for name, verdict in verdicts(printed).items() if verdict == "NO"]
    assert failing == ["edge 3x3", "edge 5x5", "edge 7x7", "random 3x7", "SimpleCNN conv2"]
    assert "5 of 11 over the tolerance" in printed


# --- A picture of the user's own --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_picture_of_the_users_own_takes_the_phantoms_place(monkeypatch, capsys, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (9, 14, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    assert run_command(monkeypatch, "--image", tmp_path / "colour.png") == 0
    assert capsys.readouterr().out.count("colour.png") == len(KERNELS)


@pytest.mark.parametrize("pixels", [np.ones((1, 1)), np.zeros((5, 5)), np.full((3, 4), 1e6)])
def test_extreme_pictures_pass(pixels):
    for name, kernel in check_kernels():
        assert compare_kernel(name, kernel, "extreme", pixels.astype(np.float32)).ok


def test_a_deep_picture_keeps_its_depth(tmp_path):
    pixels = np.array([[0, 1, 40000, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(check.read_grey(tmp_path / "deep.png"), pixels / np.float32(255))


def bad_pictures(folder):
    """Files that are no picture, and what is said about them."""
    (folder / "text.png").write_text("not a picture")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(folder / "nan.tiff")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:500])
    (folder / "folder.png").mkdir()
    return {
        "missing.png": "No such file",
        "text.png": "cannot identify",
        "nan.tiff": "NaN",
        "cut.png": "truncated",
        "folder.png": "directory",
    }


@pytest.mark.usefixtures("small")
def test_a_file_that_is_no_picture_is_the_users_error(monkeypatch, capsys, tmp_path):
    for name, problem in bad_pictures(tmp_path).items():
        assert run_command(monkeypatch, "--image", tmp_path / name) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: --image {tmp_path / name}: ")
        assert error.count("\n") == 1
        assert problem in error


# --- The layer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 5), (5, 3)])
def test_the_manual_layer_is_flaxs(kernel_size):
    random = np.random.default_rng(0)
    inputs = random.standard_normal((9, 8, 3)).astype(np.float32)
    kernel = random.standard_normal((*kernel_size, 3, 4)).astype(np.float32)
    bias = random.standard_normal(4).astype(np.float32)
    layer = nn.Conv(4, kernel_size, padding="VALID")
    expected = layer.apply({"params": {"kernel": kernel, "bias": bias}}, inputs[None])[0]
    np.testing.assert_allclose(manual_conv_layer(inputs, kernel, bias), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_recorded_layer_is_the_networks_own():
    images = jax.random.uniform(jax.random.key(0), (2, 20, 20, 1))
    variables = TwoLayers().init(jax.random.key(1), images, train=False)
    call = record_layer(TwoLayers(), variables, images, "conv2")
    assert (call.inputs.shape, call.outputs.shape) == ((2, 18, 18, 3), (2, 14, 14, 4))
    again = call.layer.apply({"params": variables["params"]["conv2"]}, call.inputs)
    np.testing.assert_array_equal(again, call.outputs)
    np.testing.assert_array_equal(nn.relu(again), TwoLayers().apply(variables, images, train=False))


# --- The tolerance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_tolerance_holds_for_a_sum_whose_every_addition_rounds_the_same_way(dtype):
    # Just over half a unit in the last place each: the worst that rounding to nearest can do.
    terms = np.array([1.0] + [0.51 * float(jnp.finfo(dtype).eps)] * 1000, dtype)
    computed = np.add.accumulate(terms)[-1]
    true = terms.astype(np.longdouble).sum()
    assert 0.2 * tolerance(len(terms), dtype) < abs(computed - true) / true < tolerance(len(terms), dtype)


def test_the_tolerance_grows_with_the_terms_and_with_the_coarseness_of_the_type():
    assert tolerance(9, jnp.float32) < tolerance(49, jnp.float32) < tolerance(801, jnp.float32)
    assert (
        tolerance(9, jnp.float64) < tolerance(9, jnp.float32) < tolerance(9, jnp.float16) < tolerance(9, jnp.bfloat16)
    )
