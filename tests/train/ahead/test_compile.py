"""python -m train compile: what the steps of a run take on a machine, which need not be there."""

import importlib.util
import re
import sys

import jax
import pytest
from processes import command
from shapes import COUNT, SMALLEST, smallest_learner

import train.program
from train.__main__ import main
from train.ahead import hlo
from train.ahead.command import compile_step
from train.ahead.targets import find_target
from train.machine.devices import Placement, choose_devices
from train.program import compile_learner
from train.state import parameter_count


def failing(monkeypatch, capsys, target):
    monkeypatch.setattr(sys, "argv", ["train", "compile", "simplecnn", "--for", target])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize("target", ["tpu", "h100:9", "cpu:0", "cpu:-1", "v5e:3x3", "v5e:8", "cpu:1:2"])
def test_a_machine_that_there_is_not_is_refused_with_those_that_there_are(monkeypatch, capsys, target):
    assert failing(monkeypatch, capsys, target) == (
        f"error: --for {target}: must be cpu, h100 or a100, with :N for N devices (at most 8 GPUs), or v5e or v6e, with"
        " :RxC for a slice, one of 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16\n"
    )


@pytest.mark.parametrize(("target", "package"), [("v5e", "libtpu"), ("h100:8", "jax_plugins")])
def test_without_the_package_that_compiles_one_line_names_the_extra(monkeypatch, capsys, target, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find(name) if not name.startswith(package) else None)
    extra, name = ("compile-tpu", "libtpu") if target == "v5e" else ("compile-cuda", "jax-cuda13-plugin")
    assert failing(monkeypatch, capsys, target) == (
        f"error: --for {target}: needs {name}, which is not installed: pip install -c constraints.txt -e '.[{extra}]'\n"
    )


@pytest.mark.slow
def test_the_table_of_a_step_on_eight_devices(processes):
    arguments = ("tiny", "--image-size", "16", "--max-images", "24", "--dtype", "bfloat16", "--for", "cpu:8")
    finished = processes.start(command("train.__main__", "compile", *arguments)).wait()
    assert finished.code == 0, finished
    lines = {line.partition("  ")[0]: re.split(r"  +", line)[1:] for line in finished.out.splitlines()}
    assert "machine    8 x CPU" in finished.out
    parameters = int(re.search(r"model +Tiny, ([\d,]+) parameters", finished.out)[1].replace(",", ""))
    assert all(cell.endswith(": fits") for cell in lines["memory"])
    # The gradients in float32, and some sums for BatchNorm; in evaluation nothing but the counts and the logits.
    (training, evaluation) = (sum(map(float, re.findall(r"([\d.]+) MB f32", cell))) for cell in lines["their bytes"])
    assert 4e-6 * parameters - 0.001 <= training < 4.2e-6 * parameters + 0.01
    assert "bf16" not in lines["their bytes"][0]
    assert evaluation < 0.01
    assert re.search(r"^largest batch that fits: [\d,]{5,} images$", finished.out, re.MULTILINE)


@pytest.mark.slow
def test_what_is_compiled_is_what_a_run_compiles(monkeypatch):
    """From shapes, the same program as from arrays, to the letter."""
    learner, theirs = smallest_learner("simplecnn", dtype="bfloat16"), []
    steps = [compile_step(learner, jax.devices()[:1], COUNT, step) for step in ("training", "evaluation")]

    def recording(compile_):
        def compiled(*arguments):
            theirs.append(compile_(*arguments))
            return theirs[-1]

        return compiled

    for name in ("compile_train_step", "compile_eval_step"):
        monkeypatch.setattr(train.program, name, recording(getattr(train.program, name)))
    compile_learner(learner, choose_devices(Placement(devices=1), COUNT))
    assert [instructions(of) for of in theirs] == [instructions(of.program) for of in steps]


def instructions(program):
    """A program's text without the places in Python's files that it comes from."""
    text = program.as_text()
    return re.sub(r", metadata=\{.*?\}", "", text[text.index("\n%") :])


@pytest.mark.accelerators
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", SMALLEST)
@pytest.mark.parametrize("machine", ["h100", "v5e"])
def test_the_steps_compile_for_accelerators(machine, model, dtype, devices):
    package, extra = ("libtpu", "compile-tpu") if machine == "v5e" else ("jax_plugins.xla_cuda13", "compile-cuda")
    pytest.importorskip(package, reason=f"needs the extra {extra}: make test-accelerators", exc_type=ImportError)
    slice_ = {1: "", 8: ":2x4" if machine == "v5e" else ":8"}
    target, learner = find_target(machine + slice_[devices]), smallest_learner(model, dtype=dtype)
    for step in ("training", "evaluation"):
        compiled = compile_step(learner, target.devices, COUNT, step)
        assert 0 < compiled.needed < target.usable
        text = compiled.program.as_text()
        by = "cuDNN" if machine == "h100" else "XLA"
        assert {name for name, _ in hlo.convolutions(text)} == {by}
        assert (by, {"float32": "f32", "bfloat16": "bf16"}[dtype]) in hlo.convolutions(text)
        summed = hlo.collectives(text)
        if devices == 1:
            assert not summed
        elif step == "training":
            assert summed["f32"] > 4 * parameter_count(learner.shapes.params)
            assert summed["bf16"] == 0
