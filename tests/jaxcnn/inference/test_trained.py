"""A classifier comes back with all that belongs to it, or not at all."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxcnn.inference.trained
from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.errors import UserError
from jaxcnn.inference.trained import Trained, load_trained, save_trained
from jaxcnn.models.table import variable_shapes

TINY = SimpleCNN(stem_features=(2, 3), squeeze_features=2, skip_features=2, head_features=2, hidden_features=2)


@pytest.fixture(scope="module")
def trained():
    shapes = variable_shapes(TINY, (50, 50, 1))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    preprocessing = Preprocessing(crop="head", image_size=50, normalization="percentile")
    return Trained(TINY, variables, preprocessing, (64, 64, 1), CLASSES, epoch=3, tta="flip")


@pytest.fixture
def folder(trained, tmp_path):
    save_trained(tmp_path / "best", trained)
    return tmp_path / "best"


def test_it_comes_back_as_it_was(trained, folder):
    loaded = load_trained(folder)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, trained.variables)
    assert dataclasses.replace(loaded, variables=trained.variables) == trained


@pytest.mark.parametrize(
    "change",
    [
        {"tta": "rotate"},
        {"tta": ["flip"]},
        {"preprocessing": {"sharpen": True}},
        {"classes": None},
    ],
    ids=str,
)
def test_a_manifest_of_another_version_is_refused(folder, change):
    """A newer one may ask for what isn't known here: without it the classifier would be another."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=f"{folder}: has a manifest of another version; train again"):
        load_trained(folder)


def test_so_is_one_with_an_unknown_normalization(folder, monkeypatch):
    # Users have no check of types, which would refuse the name here.
    monkeypatch.setattr(jaxcnn.inference.trained, "Preprocessing", SimpleNamespace)
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocessing": {"normalization": "unheard-of"}}))
    with pytest.raises(UserError, match=f"{folder}: has a manifest of another version; train again"):
        load_trained(folder)


def test_a_model_that_is_not_in_the_table_is_named(folder):
    """It may have been added in a file that isn't imported here."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "MyNet"}))
    with pytest.raises(UserError, match=f"{folder}: the model MyNet is not in the table of models"):
        load_trained(folder)
