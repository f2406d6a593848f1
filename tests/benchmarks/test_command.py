"""The benchmarks' command: what it refuses, what it writes, and what it counts."""

import csv
import dataclasses
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from benchmarks import __main__ as command
from benchmarks.contest import Contest, Measured, Result, run_contest
from benchmarks.peers import PYTORCH
from benchmarks.roofline import ACCELERATORS, products, training_steps
from jaxcnn.errors import UserError


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match=r"fast: no such benchmark; give simplecnn-training, .* or roofline"):
        command.benchmarks(("fast",))


def test_no_rounds_are_refused():
    with pytest.raises(UserError, match="--rounds 0: must be at least 1"):
        command.benchmarks(("data-preparation",), rounds=0)


def test_without_torch_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="torch: not installed; `pip install"):
        command.benchmarks(("data-preparation",))


def test_the_file_has_a_line_a_benchmark_with_its_machine(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    result = Result(
        Contest("unet_inference", 8),
        Measured((1.0, 2.0), 3.0, 2.0, 100, "cpu"),
        Measured((2.0, 6.0), 1.0, 1.0, 50, "cpu"),
    )
    monkeypatch.setattr(command, "run_contest", lambda *_: [result])
    command.benchmarks(("unet-inference",), out=tmp_path / "results.csv")
    (row,) = csv.DictReader((tmp_path / "results.csv").read_text("utf-8").splitlines())
    assert row["work"] == "unet-inference"
    # Ratios are taken round by round, 2 and 3 times as fast; not from the medians.
    assert [float(row[f"ratio_{name}"]) for name in ("median", "min", "max")] == [2.5, 2.0, 3.0]
    assert row["cpu"]
    assert row["jax"] == jax.__version__


def measured(*seconds):
    return Measured(seconds, 3.0, 2.0, 100, "cpu")


def test_of_the_peers_the_fastest_is_the_best_and_a_missing_one_is_left_out(monkeypatch, capsys):
    pytest.importorskip("torch")
    seconds = {"eager": 3.0, "channels last": 2.0, "compiled": 4.0, "compiled, channels last": 5.0, "OpenVINO": 2.5}

    def run_contest(contest, peers, _):
        return [
            Result(dataclasses.replace(contest, peer=peer), measured(1.0), measured(seconds[peer])) for peer in peers
        ]

    monkeypatch.setattr(command, "run_contest", run_contest)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else name)
    command.benchmarks(("unet-inference",), peers=True)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.rstrip().endswith("best") for line in lines] == [False, True, False, False, False, False]
    assert lines[-1].split(maxsplit=4)[2:4] == ["left", "out:"]
    assert "onnxruntime; `pip install -c constraints.txt -e '.[bench]'` gets it" in lines[-1]


def test_peers_are_compared_on_the_cpu():
    with pytest.raises(UserError, match="--peers: compares on the CPU as it is; leave out --device"):
        command.benchmarks(("unet-inference",), peers=True, device="cuda")


def test_without_a_cuda_device_or_jax_for_it_it_says_so(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"--device cuda: PyTorch .* finds no CUDA device; use a machine"):
        command.benchmarks(("simplecnn-training",), device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "cuda" in name else name)
    with pytest.raises(UserError, match="--device cuda: JAX has no CUDA here; `pip install"):
        command.benchmarks(("simplecnn-training",), device="cuda")


def test_a_batch_size_goes_with_a_device():
    with pytest.raises(UserError, match="--batch-size 8: must be at least 1, and goes with --device"):
        command.benchmarks(("simplecnn-training",), batch_size=8)


@pytest.mark.slow
def test_on_a_device_both_sides_compute_in_both_types(tmp_path, monkeypatch, capfd):
    """What a GPU would do, on the CPU; but for `torch.compile`, which takes long here."""
    pytest.importorskip("torch")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    names = ("simplecnn-inference", "data-preparation")
    command.benchmarks(names, rounds=1, out=tmp_path / "results.csv", device="cpu", batch_size=1)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text("utf-8").splitlines()))
    found = [tuple(row[column] for column in ("work", "arithmetic", "batch", "steps", "device")) for row in rows]
    assert found == [("simplecnn-inference", arithmetic, "1", "10", "cpu") for arithmetic in ("tf32", "bfloat16")]
    assert "PyTorch eager" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["tf32", "bfloat16"])
def test_pytorch_trains_on_a_device_in_the_asked_type(monkeypatch, arithmetic):
    torch = pytest.importorskip("torch")
    from benchmarks import theirs

    seen, autocast = [], torch.autocast.__enter__
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(torch.autocast, "__enter__", lambda self: (seen.append(self._enabled), autocast(self)))
    for name, size in (("simplecnn_training", 64), ("transfer_training", 128), ("unet_training", 32)):
        theirs.wait(getattr(theirs, name)(Contest(name, 2, size, "cpu", arithmetic))())
    assert set(seen) == {arithmetic == "bfloat16"}


def test_pytorch_takes_the_fastest_way_that_works(capsys):
    torch = pytest.importorskip("torch")
    from benchmarks import theirs

    def make(layout, compiled):
        def work():
            if compiled:
                raise RuntimeError("no compiler is found\nlong story")
            time.sleep(0.02 if layout == torch.contiguous_format else 0)
            return

        work.layout = layout
        return work

    assert theirs._fastest(Contest("work", 1, device="cpu"), make).layout == torch.channels_last
    assert "PyTorch compiled: no compiler is found\n" in capsys.readouterr().err


@pytest.mark.slow
def test_the_host_is_measured_with_both_ways_to_run_an_epoch(monkeypatch, capsys):
    small = {"SIZE": 50, "BATCH": 8, "EPOCHS": 3, "IMAGES": {"train": 24, "validation": 8, "test": 12}}
    for name, value in small.items():
        monkeypatch.setattr(f"benchmarks.loop.{name}", value)
    monkeypatch.setattr("benchmarks.loop.keep_freed_memory", lambda: None)
    command.benchmarks(("loop",))
    rows = [line.split()[-3:] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert len(rows) == 12
    assert all(float(number) >= 0 for row in rows for number in row)


@pytest.mark.slow
def test_both_sides_take_turns_in_processes_of_their_own():
    pytest.importorskip("torch")
    results = run_contest(Contest("data_preparation", 2, 32), ["Pillow", "Pillow, all cores"], rounds=2)
    result = results[1]
    assert [of.contest.peer for of in results] == ["Pillow", "Pillow, all cores"]
    assert len(result.ours.seconds) == len(result.theirs.seconds) == 2
    assert result.ours.start > result.ours.median > 0
    assert min(result.ours.megabytes, result.theirs.megabytes) > 10


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_contest(capfd):
    with pytest.raises(RuntimeError, match="no_such_work"):
        run_contest(Contest("no_such_work", 1), [PYTORCH], rounds=1)
    assert "no_such_work" in capfd.readouterr().err


def convolution(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_operations_are_counted_without_those_by_zeros():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))
    (valid,) = products(lambda x, k: convolution(x, k, 1, "VALID"), x, kernel)
    assert valid.operations == 2 * (2 * 6 * 6 * 5) * (3 * 3 * 3)
    assert valid.bytes == 2 * (2 * 8 * 8 * 3 + 3 * 3 * 3 * 5 + 2 * 6 * 6 * 5)
    (same,) = products(lambda x, k: convolution(x, k, 1, "SAME"), x, kernel)
    # In each direction 8 places meet 3 taps, and one of them falls outside at either end.
    assert same.operations == 2 * 2 * 3 * 5 * (8 * 3 - 2) ** 2


@pytest.mark.parametrize("stride", [1, 2])
def test_both_gradients_of_a_convolution_cost_what_it_costs(stride):
    x, kernel = jnp.zeros((2, 9, 9, 3)), jnp.zeros((3, 3, 3, 5))
    (forward,) = products(lambda x, k: convolution(x, k, stride, "VALID"), x, kernel)
    all_three = products(
        jax.grad(lambda x, k: jnp.sum(convolution(x, k, stride, "VALID") ** 2), argnums=(0, 1)), x, kernel
    )
    assert [product.operations for product in all_three] == [forward.operations] * 3


@pytest.mark.slow
def test_a_step_takes_no_less_than_its_arithmetic_and_its_bytes():
    for step in training_steps().values():
        for accelerator in ACCELERATORS:
            seconds = sum(map(accelerator.seconds, step))
            assert seconds >= sum(product.operations for product in step) / accelerator.operations
            assert seconds >= sum(product.bytes for product in step) / accelerator.bandwidth


@pytest.mark.slow
def test_the_command_exits_with_2_and_one_line():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "fast"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: fast: no such benchmark")
    assert done.stderr.count("\n") == 1
