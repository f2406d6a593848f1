"""The networks at their full size: the stand-in for the hub's weights, and random weights of the other two."""

import json

import pytest

from convert.proof import TOLERANCE
from jaxcnn import SimpleCNN, UNetClassifier


@pytest.mark.slow
@pytest.mark.real_data
def test_the_stand_in_converts_within_the_tolerance(shared, tmp_path, run_convert):
    code, out, _ = run_convert("unet", shared / "weights" / "unet-lgg128.pt", tmp_path / "OUT")
    assert code == 0
    assert "049915f3ab389a6bb3723dd8ab746586b0f39f34329a5397fae226460440a4f0" in out
    manifest = json.loads((tmp_path / "OUT" / "manifest.json").read_text("utf-8"))
    assert manifest["counts"] == {
        "entries": 118,
        "left_out": 18,
        "parameter_arrays": 64,
        "parameters": 7_763_041,
        "statistic_arrays": 36,
        "statistics": 5_888,
    }
    assert len(manifest["parity"]) == 42  # 18 convolutions, 18 norms, 4 transposed ones, the last, and the output.
    assert max(row["relative"] for row in manifest["parity"]) < TOLERANCE / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "parameters"),
    [("simplecnn", SimpleCNN(gate="softmax"), 7_664_420), ("unet-classifier", UNetClassifier(), 13_136_996)],
)
def test_the_reference_projects_networks_convert_within_the_tolerance(
    name, model, parameters, torch_network, save, tmp_path, run_convert
):
    path = save({"model": torch_network(model).state_dict(), "optimizer": {}, "metrics": {}})
    assert run_convert(name, path, tmp_path / "OUT")[0] == 0
    manifest = json.loads((tmp_path / "OUT" / "manifest.json").read_text("utf-8"))
    assert manifest["counts"]["parameters"] == parameters
    assert max(row["relative"] for row in manifest["parity"]) < TOLERANCE / 10
