"""A classifier comes back with all that belongs to it, or not at all."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.errors import UserError
from jaxcnn.inference.trained import (
    Trained,
    classify,
    compile_with_weights,
    load_trained,
    read_description,
    save_trained,
)
from jaxcnn.models.table import variable_shapes
from jaxcnn.runs import trees

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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_comes_back_as_it_was(trained, tmp_path, dtype):
    trained = dataclasses.replace(trained, model=TINY.clone(dtype=jnp.dtype(dtype)))
    save_trained(tmp_path / "best", trained)
    loaded = load_trained(tmp_path / "best")
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, trained.variables)
    assert dataclasses.replace(loaded, variables=trained.variables) == trained


@pytest.mark.slow
def test_it_is_used_in_the_type_of_numbers_that_it_was_judged_in(trained, tmp_path):
    """What training wrote down as predictions is what it predicts, to the bit."""
    images = np.random.default_rng(1).integers(0, 256, (4, 50, 50, 1), np.uint8)
    judged = dataclasses.replace(trained, model=TINY.clone(dtype=jnp.bfloat16), preprocessing=Preprocessing())
    save_trained(tmp_path / "best", judged)
    # As in training, where Flax mixes the two types.
    with jax.numpy_dtype_promotion("standard"):
        found, expected, other = (
            np.asarray(compile_with_weights(classify, (one,))(images))
            for one in (load_trained(tmp_path / "best"), judged, dataclasses.replace(judged, model=TINY))
        )
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, other)


def test_one_that_was_saved_before_the_type_was_written_down_is_of_float32(folder):
    change_manifest(folder, lambda content: content.pop("dtype"))
    assert load_trained(folder).model.dtype == jnp.float32


def change_manifest(folder, change):
    path = folder / "manifest.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"tta": "rotate"},
        {"tta": ["flip"]},
        {"dtype": "int4"},
        {"preprocessing": {"crop": "none", "sharpen": True}},
        {"preprocessing": {"crop": "none", "image_size": "50"}},
        {"preprocessing": {"crop": "none", "image_size": 10**12}},
        {"preprocessing": {"crop": "none", "normalization": "unheard-of"}},
        {"preprocessing": {"crop": ["head"]}},
        {"preprocessing": {"crop": "ears"}},
        {"classes": None},
        {"classes": ["glioma_tumor"]},
        {"classes": ["glioma_tumor"] * 4},
        {"epoch": -1},
        {"image_shape": [10**12, 10**12, 1]},
        {"image_shape": [0, 64, 1]},
        {"image_shape": [64, 64]},
        {"fields": {"hidden_features": 10**12}},
        {"fields": {"hidden_features": -5}},
        {"fields": {"gate": 3}},
        {"fields": {"wings": 2}},
        {"fields": []},
    ],
    ids=str,
)
def test_a_manifest_of_another_version_or_a_damaged_one_is_refused(folder, change):
    """A newer one may ask for what isn't known here: without it the classifier would be another."""
    change_manifest(folder, lambda content: content.update(change))
    with pytest.raises(UserError, match=rf"{folder}.*: (was written by another version|is damaged \(.*\)); .*train"):
        load_trained(folder)


def test_a_model_that_is_not_in_the_table_is_named(folder):
    """It may have been added in a file that isn't imported here."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"model": "MyNet"}))
    with pytest.raises(UserError, match=f"{folder}: the model MyNet is not in the table of models"):
        load_trained(folder)


def test_weights_and_epoch_are_of_one_classifier_while_another_takes_its_place(trained, folder, monkeypatch):
    """A run goes on while its best classifier is read, and the folder is swapped between manifest and arrays."""
    newer = dataclasses.replace(trained, epoch=4, variables=jax.tree.map(lambda leaf: leaf + 1, trained.variables))
    read_manifest, swaps = trees.read_manifest, iter([newer, dataclasses.replace(newer, epoch=5)])

    def read_and_swap(*arguments, **options):
        content = read_manifest(*arguments, **options)
        if (swap := next(swaps, None)) is not None:
            save_trained(folder, swap)
        return content

    monkeypatch.setattr("jaxcnn.inference.trained.read_manifest", read_and_swap)
    loaded = load_trained(folder)
    assert loaded.epoch == 5
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, newer.variables)


def test_the_epoch_alone_can_be_read(folder):
    assert read_description(folder)["epoch"] == 3
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: is damaged"):
        read_description(folder)
