"""Checkpoints with anything changed in them: the tensors fit the network, or one line says what is wrong."""

import io

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import MANY, mutated, read_or_refused

from convert.checkpoint import fit, read_checkpoint
from jaxcnn.errors import UserError

pytestmark = pytest.mark.fuzz

STATE = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).state_dict()


def saved(content, **options):
    written = io.BytesIO()
    torch.save(content, written, **options)
    return written.getvalue()


FILES = {
    "zip": saved(STATE),
    "wrapped": saved({"model": STATE, "optimizer": {"lr": 0.1}, "epoch": 3}),
    "older": saved(STATE, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save(STATE),
}


@pytest.mark.parametrize("name", FILES)
@MANY
@given(data=st.data())
def test_checkpoints(tmp_path_factory, name, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.pt"
    path.write_bytes(data.draw(mutated(FILES[name])))
    fitted, refused = read_or_refused(lambda: fit(read_checkpoint(path), STATE), UserError)
    if refused:
        assert refused.startswith(f"{path}: ")
    else:
        assert {key: (of.shape, of.dtype) for key, of in fitted.tensors.items()} == {
            key: (of.shape, of.dtype) for key, of in STATE.items()
        }
        assert all(of.isfinite().all() for of in fitted.tensors.values())
