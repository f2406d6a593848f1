"""Converted weights are read back with their model, whole or the encoder alone, and without torch."""

import json
import shutil
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest
from random_weights import save_random_weights

from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.errors import UserError
from jaxcnn.inference.pretrained import load_pretrained, save_pretrained
from jaxcnn.inference.segmentation import load_segmenter
from jaxcnn.models.table import model_fields

TINY_UNET = UNet(features=2)
MODELS = {
    "UNet": (TINY_UNET, (32, 48, 3)),
    "SimpleCNN": (
        SimpleCNN(stem_features=(2, 3), skip_features=2, head_features=3, hidden_features=4, gate="softmax"),
        (64, 64, 1),
    ),
    "UNetClassifier": (UNetClassifier(features=2, head_features=3, hidden_features=4), (128, 128, 1)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "unet"
    save_random_weights(folder, *MODELS["UNet"])
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "unet")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_model_and_variables_come_back_as_they_were(name, tmp_path):
    model, image_shape = MODELS[name]
    variables = save_random_weights(tmp_path / "OUT", model, image_shape)
    pretrained = load_pretrained(tmp_path / "OUT")
    assert pretrained.model == model
    assert hash(pretrained.model) == hash(model)  # or jit refuses it as a static argument
    jax.tree.map(np.testing.assert_array_equal, pretrained.variables, variables)
    assert pretrained.manifest.image_shape == image_shape
    assert pretrained.manifest.parity[0]["block"] == "conv"


def test_how_a_model_is_run_is_no_property_of_its_weights():
    assert model_fields(UNet(axis_name="data", name="unet")) == model_fields(UNet())


@pytest.mark.slow
def test_the_encoder_comes_without_the_decoder(folder):
    whole = load_pretrained(folder).variables
    encoder = load_pretrained(folder, "encode")
    stages = {"encoder1", "encoder2", "encoder3", "encoder4", "bottleneck"}
    for collection, tree in encoder.variables.items():
        assert set(tree) == stages
        jax.tree.map(np.testing.assert_array_equal, tree, {stage: whole[collection][stage] for stage in stages})
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    encode = jax.jit(partial(encoder.model.apply, train=False, method="encode"))
    jax.tree.map(np.testing.assert_array_equal, encode(encoder.variables, images), encode(whole, images))


def test_the_encoder_is_read_where_the_decoder_is_not(folder, tmp_path):
    """What isn't there can't be read."""
    half = load_pretrained(folder, "encode")
    save_pretrained(tmp_path / "half", jax.device_get(half.variables), half.manifest, overwrite=False)
    again = load_pretrained(tmp_path / "half", "encode")
    jax.tree.map(np.testing.assert_array_equal, again.variables, half.variables)
    with pytest.raises(UserError, match=r"has no batch_stats/decoder.*; let python -m convert write it again"):
        load_pretrained(tmp_path / "half")


@pytest.mark.slow
def test_torch_is_not_needed(folder):
    script = """
import sys
from pathlib import Path
sys.modules["torch"] = None  # an import of it fails
from jaxcnn.inference.pretrained import load_pretrained
print(*load_pretrained(Path(sys.argv[1]), "encode").variables["params"])
"""
    shown = subprocess.run([sys.executable, "-c", script, folder], check=True, capture_output=True, text=True).stdout
    assert "bottleneck" in shown


def test_another_model_is_no_unet(tmp_path):
    save_random_weights(tmp_path / "OUT", *MODELS["SimpleCNN"])
    with pytest.raises(UserError, match="holds a SimpleCNN, not a UNet; python -m convert unet writes one"):
        load_segmenter(tmp_path / "OUT")


@pytest.mark.parametrize(
    "change",
    [
        {"fields": {"widths": 3}},
        {"fields": None},
        {"normalization": "unheard-of"},
        {"normalization": ["none"]},
        {"image_shape": None},
        {"image_shape": [10**12, 10**12, 3]},
        {"fields": {"features": 10**12}},
        {"fields": {"features": -1}},
        {"fields": {"features": [[[]]]}},
        {"unknown": 1},
        {"image_shape": ...},
    ],
)
def test_a_manifest_of_another_version_is_refused(folder, change):
    path = folder / "manifest.json"
    content = {key: value for key, value in (json.loads(path.read_text("utf-8")) | change).items() if value is not ...}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{folder}: was written by another version; convert the weights again"):
        load_pretrained(folder)


def test_fields_that_do_not_fit_the_arrays_are_refused(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"fields": {"features": 3}}))
    with pytest.raises(UserError, match=r": .*/.* is float32\(.*\), expected float32\(.*\); let python -m convert"):
        load_pretrained(folder)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(UserError, match="holds no weights"):
        load_pretrained(tmp_path / "missing")


def test_a_model_that_is_not_in_the_table_is_named(folder):
    """It may have been added in a file that isn't imported here."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"model": "MyNet"}))
    with pytest.raises(UserError, match=f"{folder}: the model MyNet is not in the table of models"):
        load_pretrained(folder)
