"""Checkpoints as people have them are read, whatever lies around the weights; hostile ones are refused in one line."""

import argparse
import datetime as dt
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from convert.checkpoint import fit, read_checkpoint
from jaxcnn.errors import UserError

LAYERS = {"conv": torch.nn.Conv2d(1, 2, 3), "norm": torch.nn.BatchNorm2d(2), "fc": torch.nn.Linear(2, 2)}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return torch.nn.ModuleDict(LAYERS).state_dict()


def prefixed(prefix):
    return lambda state: {prefix + key: tensor for key, tensor in state.items()}


def cast(dtype):
    return lambda state: {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}


LIGHTNING = {"epoch": 1, "global_step": 5, "pytorch-lightning_version": "2.5.0", "hyper_parameters": {"lr": 1e-3}}
# What people save, and what is told of it: what lies beside, what is stripped, what is absent, what is cast.
KINDS = {
    "plain": (lambda state: state, {}),
    "DataParallel": (prefixed("module."), {"stripped": "module."}),
    "torch.compile": (prefixed("_orig_mod."), {"stripped": "_orig_mod."}),
    "wrapped as model": (prefixed("model."), {"stripped": "model."}),
    "wrapped as net": (prefixed("net."), {"stripped": "net."}),
    "compiled in DataParallel": (prefixed("module._orig_mod."), {"stripped": "module._orig_mod."}),
    "state_dict": (lambda state: {"epoch": 3, "state_dict": state}, {"ignored": ("epoch",)}),
    "model_state_dict": (lambda state: {"model_state_dict": state, "loss": 0.1}, {"ignored": ("loss",)}),
    "model": (lambda state: {"model": state, "optimizer": {}}, {"ignored": ("optimizer",)}),
    "nested": (lambda state: {"model": {"state_dict": state, "arch": "x"}, "t": 1}, {"ignored": ("t", "arch")}),
    "Lightning": (
        lambda state: {"state_dict": prefixed("model.")(state), **LIGHTNING},
        {"ignored": tuple(LIGHTNING), "stripped": "model."},
    ),
    "NumPy's scalar": (lambda state: {"model": state, "f1": [np.float64(0.8)]}, {"ignored": ("f1",)}),
    "NumPy's array": (lambda state: {"model": state, "f1": np.arange(3.0)}, {"ignored": ("f1",)}),
    "parsed options": (lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)}, {"ignored": ("args",)}),
    "path and date": (
        lambda state: {"model": state, "log": Path("runs"), "date": dt.datetime(2020, 1, 1)},
        {"ignored": ("log", "date")},
    ),
    "parameters": (lambda state: {key: torch.nn.Parameter(value, False) for key, value in state.items()}, {}),
    "PyTorch 0.4.0": (
        lambda state: {key: value for key, value in state.items() if "tracked" not in key},
        {"absent": ("norm.num_batches_tracked",)},
    ),
    "float16": (cast(torch.float16), {"cast": {"float16": 8}}),
    "bfloat16": (cast(torch.bfloat16), {"cast": {"bfloat16": 8}}),
    "float64": (cast(torch.float64), {"cast": {"float64": 8}}),
}


@pytest.mark.parametrize("write", ["torch.save", "torch.save of 2019", "safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_people_save_is_read_and_told(kind, write, state, tmp_path):
    change, told = KINDS[kind]
    content, path = change(state), tmp_path / "checkpoint"
    if write == "safetensors":
        if not all(isinstance(value, torch.Tensor) for value in content.values()):
            pytest.skip("it holds tensors alone")
        safetensors.torch.save_file({key: value.contiguous() for key, value in content.items()}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch.save")
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.ignored) == set(told.get("ignored", ()))
    fitted = fit(checkpoint, state, unneeded=["norm.num_batches_tracked"])
    assert fitted.stripped == told.get("stripped", "")
    assert fitted.absent == told.get("absent", ())
    assert fitted.cast == told.get("cast", {})
    assert list(fitted.tensors) == list(state)
    dtype = getattr(torch, next(iter(fitted.cast), "float32"))
    for key, tensor in state.items():
        if tensor.is_floating_point():
            assert torch.equal(fitted.tensors[key], tensor.to(dtype).float())


def test_the_scalar_of_an_older_numpy_is_read_too(state, tmp_path):
    """NumPy 1 pickles it under another name, which is what scikit-learn up to 1.5 leaves in a trainer's file."""
    path = tmp_path / "new.pt"
    torch.save({"model": state, "f1": np.float64(0.25)}, path)
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            content = new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            assert (b"numpy.core.multiarray" in content) == name.endswith("data.pkl")
            old.writestr(name, content)
    assert set(read_checkpoint(tmp_path / "old.pt").tensors) == set(state)


def test_names_of_the_network_itself_are_no_prefix(state, tmp_path):
    """A network whose only part is called model, saved by itself and in DataParallel."""
    layout = prefixed("model.")(state)
    for saved, stripped in ((layout, ""), (prefixed("module.")(layout), "module."), (state, None)):
        torch.save(saved, tmp_path / "checkpoint.pt")
        checkpoint = read_checkpoint(tmp_path / "checkpoint.pt")
        if stripped is None:
            with pytest.raises(UserError, match=r"missing: model\.conv\.weight"):
                fit(checkpoint, layout)
        else:
            assert fit(checkpoint, layout).stripped == stripped


def test_a_parameter_with_two_names_is_one(state, tmp_path):
    layout = state | {"tied.weight": state["fc.weight"]}
    shared = {"tied.weight": "fc.weight"}
    # safetensors writes it once.
    for saved in (layout, state, {key: value for key, value in layout.items() if key != "fc.weight"}):
        torch.save(saved, tmp_path / "checkpoint.pt")
        fitted = fit(read_checkpoint(tmp_path / "checkpoint.pt"), layout, shared=shared)
        assert torch.equal(fitted.tensors["tied.weight"], fitted.tensors["fc.weight"])
    torch.save(layout | {"tied.weight": state["fc.weight"] + 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"tied\.weight and fc\.weight differ, but are the same parameter"):
        fit(read_checkpoint(tmp_path / "checkpoint.pt"), layout, shared=shared)


# What is hostile


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch canary",)


def contains_itself(state):
    content = {"epoch": len(state)}
    content["model"] = content
    return content


def blown_up(state):
    """A small archive of torch that says it holds a gigabyte, and does when it is unpacked."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/99", bytes(10**7))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda state: {"model": state, "callback": RunsCode()},
            "refused, since unpickling it would call posix.system",
        ),
        (lambda state: {"model": state, "f": torch.nn.Linear(1, 1)}, "would call torch.nn.modules.linear.Linear"),
        (contains_itself, "'epoch' is not a tensor but int|holds no state_dict|'model' is not a tensor"),
        (
            lambda state: state | {"x": torch.ones(1).expand(10**12)},
            r"x claims \(1000000000000,\) numbers but stores few",
        ),
        (blown_up, "claims to hold .* bytes in a file of"),
    ],
)
def test_hostile_pickles(make, words, state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, content = tmp_path / "hostile.pt", make(state)
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=words):
        read_checkpoint(path)
    assert list(tmp_path.iterdir()) == [path]


def safetensors_file(header, data=b"", length=None):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


EIGHT = bytes(8)
HOSTILE = {
    "cut off in the header": safetensors_file({"a": tensor([2], 0, 8)}, EIGHT)[:30],
    "cut off in the data": safetensors_file({"a": tensor([2], 0, 8)}, EIGHT)[:-1],
    "more data than it says": safetensors_file({"a": tensor([2], 0, 8)}, EIGHT * 2),
    "overlapping": safetensors_file({"a": tensor([2], 0, 8), "b": tensor([1], 4, 8)}, EIGHT),
    "a hole": safetensors_file({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, EIGHT * 2),
    "offsets beyond the end": safetensors_file({"a": tensor([2**40], 0, 2**42)}, EIGHT),
    "offsets backwards": safetensors_file({"a": tensor([2], 8, 0)}, EIGHT),
    "offsets below zero": safetensors_file({"a": tensor([2], -8, 0)}, EIGHT),
    "a shape that isn't its bytes": safetensors_file({"a": tensor([3], 0, 8)}, EIGHT),
    "a shape that overflows": safetensors_file({"a": tensor([2**63, 2**63], 0, 8)}, EIGHT),
    "a header of exabytes": safetensors_file({"a": tensor([2], 0, 8)}, EIGHT, length=2**62),
    "an unknown type": safetensors_file({"a": tensor([2], 0, 8, "F33")}, EIGHT),
    "no JSON": safetensors_file(b'{"a": [[[[', EIGHT),
    "other JSON": safetensors_file(b'{"a": 7}', EIGHT),
    "no text": safetensors_file(b'{"\xff": 7}', EIGHT),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_safetensors(name, tmp_path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match="a damaged safetensors file") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value).strip()
    assert len(str(error.value)) < 500


def test_an_empty_safetensors_file_holds_no_state_dict(tmp_path):
    path = tmp_path / "empty.safetensors"
    path.write_bytes(safetensors_file({}))
    with pytest.raises(UserError, match="holds no state_dict"):
        read_checkpoint(path)
