"""python -m convert, as a user types it: on good checkpoints, and on everything else."""

import hashlib
import importlib.util
import io
import json
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from flax.traverse_util import flatten_dict
from orbax.checkpoint import v1 as orbax

from convert import recipes
from convert.mapping import Rule
from convert.rules import UNET
from jaxcnn import SimpleCNN
from jaxcnn.inference.pretrained import load_pretrained


@pytest.fixture
def convert_unet(run_convert, tmp_path):
    """Convert a file to OUT beside it."""
    return lambda path, *more: run_convert("unet", path, tmp_path / "OUT", *more)


def assert_refused(result, *words):
    """Exit code 2, and one line that holds these words."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert str(word) in err


def leaves(folder):
    """What Orbax alone reads there, without this project."""
    return flatten_dict(orbax.load(folder), sep="/")


# What is written


@pytest.mark.slow
def test_a_conversion_is_written_with_its_proof(convert_unet, states, save, tmp_path):
    path = save(states["unet"])
    code, out, err = convert_unet(path)
    assert (code, err) == (0, "")
    assert out.endswith(f"\n{tmp_path / 'OUT'}\n")
    manifest = json.loads((tmp_path / "OUT" / "manifest.json").read_text("utf-8"))
    layers = {key.rpartition(".")[0] for key in states["unet"]}
    assert {row["block"] for row in manifest["parity"]} == layers | {"output"}
    assert max(row["relative"] for row in manifest["parity"]) <= manifest["tolerance"] == 1e-4
    for stage in {layer.split(".")[0] for layer in layers}:
        inside = [row for row in manifest["parity"] if row["block"].split(".")[0] == stage]
        worst = max(inside, key=lambda row: row["relative"])
        shape = " x ".join(map(str, worst["shape"]))
        line = rf"^{stage} +{len(inside)}  {shape} +{worst['absolute']:.1e} +{worst['relative']:.1e}$"
        assert re.search(line, out, re.MULTILINE)
    assert manifest["source"] == "checkpoint.pt"
    assert manifest["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["paths"].keys() | manifest["left_out"].keys() == states["unet"].keys()
    assert manifest["counts"]["entries"] == 118
    assert set(manifest["counters"].values()) == {1234}
    assert torch.__version__.startswith(manifest["versions"]["torch"].split("+")[0])
    assert (manifest["model"], manifest["normalization"]) == ("UNet", "per-image-z-score")


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "simplecnn", "unet-classifier"])
def test_every_array_arrives_under_the_name_that_the_manifest_gives(network, run_convert, states, save, tmp_path):
    assert run_convert(network, save(states[network]), tmp_path / "OUT")[0] == 0
    tree = leaves(tmp_path / "OUT")
    manifest = json.loads((tmp_path / "OUT" / "manifest.json").read_text("utf-8"))
    assert tree.keys() == set(manifest["paths"].values())
    for key, path in manifest["paths"].items():
        np.testing.assert_array_equal(np.sort(tree[path], axis=None), np.sort(states[network][key].numpy(), axis=None))
    ignored = {key for key in states[network] if key.endswith("num_batches_tracked")}
    if network == "unet-classifier":
        ignored |= {key for key in states[network] if re.match(r"unet\.(upconv|decoder|conv)", key)}
    assert manifest["left_out"].keys() == ignored


@pytest.mark.slow
def test_the_simplecnn_keeps_the_reference_projects_gate(run_convert, states, save, tmp_path):
    code, out, _ = run_convert("simplecnn", save(states["simplecnn"]), tmp_path / "OUT")
    assert code == 0
    assert "the reference network returns their softmax" in out
    pretrained = load_pretrained(tmp_path / "OUT")
    assert isinstance(pretrained.model, SimpleCNN)
    assert pretrained.model.gate == "softmax"
    assert pretrained.manifest.fields["gate"] == "softmax"


@pytest.mark.slow
def test_parameters_and_other_memory_layouts_are_arrays_too(convert_unet, states, save, tmp_path):
    state = states["unet"] | {KERNEL: torch.nn.Parameter(states["unet"][KERNEL].to(memory_format=torch.channels_last))}
    assert convert_unet(save(state))[0] == 0
    kernel = leaves(tmp_path / "OUT")["params/decoder2/conv1/kernel"]
    np.testing.assert_array_equal(kernel, states["unet"][KERNEL].numpy().transpose(2, 3, 1, 0))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_other_precisions_become_float32_and_the_report_says_so(convert_unet, states, save, tmp_path, dtype):
    state = {key: tensor.to(dtype) for key, tensor in states["unet"].items()}
    code, out, _ = convert_unet(save(state))
    name = str(dtype).removeprefix("torch.")
    assert code == 0
    assert f"100 arrays from {name} to float32" in out
    assert json.loads((tmp_path / "OUT" / "manifest.json").read_text("utf-8"))["converted_to_float32"] == {name: 100}
    kernel = leaves(tmp_path / "OUT")["params/encoder1/conv1/kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, state["encoder1.enc1conv1.weight"].float().numpy().transpose(2, 3, 1, 0))


@pytest.mark.slow
def test_a_normalization_that_is_given_is_kept(convert_unet, states, save, tmp_path):
    assert convert_unet(save(states["unet"]), "--normalization", "none")[0] == 0
    assert load_pretrained(tmp_path / "OUT").manifest.normalization == "none"


# What fails the proof


@pytest.mark.slow
def test_a_wrong_conversion_is_not_written(convert_unet, states, save, tmp_path, monkeypatch):
    """A slip in the table that all shapes allow: height and width of the square kernels exchanged."""

    def slip(line):
        return Rule(line.pattern, line.path, lambda weight: weight.transpose(3, 2, 1, 0)) if is_kernel(line) else line

    def is_kernel(line):
        return isinstance(line, Rule) and "decoder" in line.path and "kernel" in line.path

    monkeypatch.setattr(recipes, "UNET", tuple(map(slip, UNET)))
    path = save(states["unet"])
    code, out, err = convert_unet(path)
    assert code == 1
    assert out.count("over the tolerance") == 9  # The decoders and what follows.
    assert err.count("\n") == 1
    assert re.search(
        r"nothing was written: the first block that differs is decoder4\.dec4conv1: PyTorch gives mean", err
    )
    assert list(tmp_path.iterdir()) == [path]


# What is no checkpoint


class RunsCode:
    """Unpickled, it makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def as_torch_zip(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def as_old_torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "write",
    [as_torch_zip, as_old_torch_file, *(lambda content, p=p: pickle.dumps(content, protocol=p) for p in range(6))],
)
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"model": {"conv.bias": torch.ones(1), "x": evil}}])
def test_a_pickle_that_would_run_code_does_not_run(convert_unet, tmp_path, write, wrap):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pt"
    path.write_bytes(write(wrap(RunsCode(canary))))
    assert_refused(convert_unet(path), path)
    assert list(tmp_path.iterdir()) == [path]
    # It is not harmless: unpickled, it does make the file.
    pickle.loads(pickle.dumps(RunsCode(canary)))
    assert canary.exists()


@pytest.mark.parametrize("write", [as_torch_zip, as_old_torch_file])
def test_the_call_that_a_pickle_would_make_is_named(convert_unet, tmp_path, write):
    path = tmp_path / "evil.pt"
    path.write_bytes(write({"model": RunsCode(tmp_path / "canary")}))
    assert_refused(convert_unet(path), "refused", "posix.system", "save its state_dict")


def zip_of_text():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("folder/text", "no checkpoint")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no checkpoint",
        b"PK\x03\x04",
        zip_of_text(),
        as_torch_zip({"conv.bias": torch.ones(1000)})[:-500],
        as_old_torch_file({"conv.bias": torch.ones(1000)})[:-500],
        bytes(range(256)) * 10,
        pickle.dumps({"conv.bias": [1.0]}, protocol=4),
        safetensors.torch.save({"conv.bias": torch.ones(1000)})[:-500],
    ],
    ids=["empty", "text", "zip header", "other zip", "cut zip", "cut old file", "bytes", "other pickle", "safetensors"],
)
def test_a_file_that_is_no_checkpoint(convert_unet, tmp_path, content):
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    assert_refused(convert_unet(path), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_whole_module_is_not_a_state_dict(convert_unet, save, tmp_path):
    assert_refused(convert_unet(save(torch.nn.Linear(2, 2))), "torch.nn.modules.linear.Linear")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert_refused(convert_unet(tmp_path / "script.pt"), "not a PyTorch checkpoint")


def test_a_file_that_is_not_there(convert_unet, tmp_path):
    assert_refused(convert_unet(tmp_path / "missing.pt"), f"{tmp_path}/missing.pt: no such file")
    assert_refused(convert_unet(tmp_path), f"{tmp_path}: can't be read: Is a directory")


# What is a checkpoint of something else


def without(state, key):
    return {other: tensor for other, tensor in state.items() if other != key}


KERNEL, BIAS, MEAN = "decoder2.dec2conv1.weight", "upconv3.bias", "bottleneck.bottlenecknorm2.running_mean"
VARIANCE = MEAN.replace("mean", "var")


def nested():
    return torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: without(state, KERNEL), [f"missing: {KERNEL}"]),
        (lambda state: state | {"extra.weight": torch.ones(2)}, ["unexpected: extra.weight"]),
        (
            lambda state: without(state, MEAN) | {"bottleneck.norm2.running_mean": state[MEAN]},
            [f"missing: {MEAN}", "unexpected: bottleneck.norm2.running_mean"],
        ),
        (lambda state: {f"other.{key}": tensor for key, tensor in state.items()}, ["missing: ", " and 90 more"]),
        (
            lambda state: {f"module.{key}" if key == KERNEL else key: tensor for key, tensor in state.items()},
            [f"missing: {KERNEL}", f"unexpected: module.{KERNEL}"],
        ),
        (lambda state: state | {1: torch.ones(2)}, ["unexpected: 1"]),
        (
            lambda state: state | {KERNEL: state[KERNEL].transpose(0, 1)},
            [f"{KERNEL} has shape (16, 8, 3, 3), expected (8, 16, 3, 3)"],
        ),
        (lambda state: state | {BIAS: torch.ones(1)}, [f"{BIAS} has shape (1,), expected (16,)"]),
        (
            lambda state: state | {BIAS: state[BIAS].int()},
            [f"{BIAS} has type int32, expected floating-point numbers"],
        ),
        (lambda state: state | {BIAS: state[BIAS].cfloat()}, [f"{BIAS} has type complex64"]),
        (lambda state: state | {BIAS: state[BIAS].to_sparse()}, [f"{BIAS} is not a dense tensor"]),
        (lambda state: state | {BIAS: state[BIAS].to("meta")}, [f"{BIAS} is not a dense tensor"]),
        (lambda state: state | {BIAS: state[BIAS] * torch.nan}, [f"not finite in float32: {BIAS}"]),
        (lambda state: state | {BIAS: torch.full((16,), 1e300, dtype=torch.float64)}, [f"in float32: {BIAS}"]),
        (lambda state: state | {KERNEL: nested()}, ["is a nested"]),
        (lambda state: state | {VARIANCE: -state[VARIANCE]}, [f"variances below 0: {VARIANCE}"]),
        (lambda state: {key: torch.zeros_like(tensor) for key, tensor in state.items()}, ["all weights are 0"]),
        pytest.param(
            lambda state: {
                key: tensor + 1e30 if tensor.is_floating_point() else tensor for key, tensor in state.items()
            },
            ["PyTorch's own encoder1.enc1norm1 gives infinite or NaN values with these numbers"],
            marks=pytest.mark.slow,
        ),
        (lambda state: state | {"epoch": 3}, ["'epoch' is not a tensor but int"]),
        (lambda state: {"weights": state}, ["'weights' is not a tensor but dict"]),
        (lambda state: state | {"epoch": np.float64(3)}, ["'epoch' is not a tensor but scalar"]),
        (lambda state: state | {BIAS: torch.ones(1).expand(16)}, [f"{BIAS} claims (16,) numbers but stores fewer"]),
        (lambda _: {"model": [1, 2]}, ["holds no state_dict"]),
        (lambda _: {"model": {}}, ["holds no state_dict"]),
        (lambda state: list(state.values()), ["holds no state_dict"]),
        (lambda state: state[BIAS], ["holds no state_dict"]),
    ],
)
def test_a_checkpoint_of_something_else(convert_unet, states, save, tmp_path, change, words):
    path = save(change(states["unet"]))
    assert_refused(convert_unet(path), path, *words)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("network", "other"), [("unet", "simplecnn"), ("unet-classifier", "unet")])
def test_a_checkpoint_of_another_network(network, other, run_convert, states, save, tmp_path):
    path = save(states[other])
    assert_refused(run_convert(network, path, tmp_path / "OUT"), path, "missing: ", "unexpected: ", "--help")


# Where it can't be written, or shouldn't


@pytest.mark.slow
def test_what_is_there_is_only_replaced_on_request(convert_unet, states, save, tmp_path):
    first, second = save(states["unet"], "first.pt"), save(states["unet"] | {BIAS: torch.zeros(16)}, "second.pt")
    assert convert_unet(first)[0] == 0
    assert_refused(convert_unet(second), tmp_path / "OUT", "--overwrite")
    assert leaves(tmp_path / "OUT")["params/upconv3/bias"].any()
    assert convert_unet(second, "--overwrite")[0] == 0
    assert not leaves(tmp_path / "OUT")["params/upconv3/bias"].any()
    assert {path.name for path in tmp_path.iterdir()} == {"first.pt", "second.pt", "OUT"}


@pytest.mark.slow
def test_a_failed_replacement_leaves_what_was_there(convert_unet, states, save, tmp_path):
    assert convert_unet(save(states["unet"]))[0] == 0
    before = leaves(tmp_path / "OUT")
    assert convert_unet(save(without(states["unet"], KERNEL)), "--overwrite")[0] == 2
    for path, array in leaves(tmp_path / "OUT").items():
        np.testing.assert_array_equal(array, before[path])


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_folder_of_something_else_is_never_replaced(convert_unet, states, save, tmp_path, options):
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT" / "precious").touch()
    assert_refused(convert_unet(save(states["unet"]), *options), tmp_path / "OUT", "holds no weights")
    assert (tmp_path / "OUT" / "precious").exists()


def test_a_place_that_cannot_be_written(run_convert, states, save, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = run_convert("unet", save(states["unet"]), tmp_path / "file" / "OUT")
    assert code == 2
    assert "OUT: can't be written: " in err


@pytest.mark.parametrize("words", [[], ["one"], ["one", "two", "three"], ["--hub"], ["--hub", "one", "two"]])
def test_too_few_or_too_many_paths(run_convert, words):
    assert_refused(run_convert("unet", *words), "give CHECKPOINT OUT, or --hub OUT")


@pytest.mark.parametrize("network", ["unet", "simplecnn", "unet-classifier"])
def test_without_torch_one_line_says_what_to_install(network, run_convert, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    printed = "pip install -c constraints.txt -e '.[convert]'"
    assert_refused(run_convert(network, "checkpoint.pt", tmp_path / "OUT"), printed)
