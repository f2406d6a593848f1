"""The tables leave nothing to chance: every entry is used once, every leaf is filled once, and with what fits."""

import re

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from hypothesis import given, settings

from convert import recipes
from convert.mapping import LeftOut, Rule, map_arrays
from convert.rules import conv_kernel, dense_kernel, flattened_kernel
from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.models.table import variable_shapes

FULL_SIZE = {
    "unet": lambda: recipes.unet(UNet(), "none"),
    "simplecnn": lambda: recipes.simplecnn(SimpleCNN(gate="softmax")),
    "unet-classifier": lambda: recipes.unet_classifier(UNetClassifier()),
}
TABLE = (
    Rule(r"layer(\d)\.weight", r"params/layer\1/kernel", dense_kernel),
    Rule(r"layer(\d)\.bias", r"params/layer\1/bias"),
    LeftOut(r"layer\d\.counter", "a counter"),
)
EXPECTED = {
    "params": {
        "layer1": {"kernel": jax.ShapeDtypeStruct((2, 3), "float32"), "bias": jax.ShapeDtypeStruct((3,), "float32")}
    }
}


def state(**changes):
    """A state_dict that fits; `changes` replace entries, or take them away (None)."""
    arrays = {
        "layer1.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
        "layer1.bias": np.ones(3, np.float32),
        "layer1.counter": np.array(5),
    }
    return {key: array for key, array in (arrays | changes).items() if array is not None}


def test_what_fits_is_mapped_and_accounted_for():
    mapped = map_arrays(TABLE, state(), EXPECTED)
    np.testing.assert_array_equal(mapped.variables["params"]["layer1"]["kernel"], [[0, 2, 4], [1, 3, 5]])
    assert mapped.paths == {"layer1.weight": "params/layer1/kernel", "layer1.bias": "params/layer1/bias"}
    assert mapped.left_out == {"layer1.counter": "a counter"}


@pytest.mark.parametrize(
    ("table", "arrays", "problem"),
    [
        (TABLE, state(other=np.ones(3, np.float32)), "other: 0 lines of the table match"),
        (TABLE, state(**{"layer1.weight.old": np.ones(3)}), "layer1.weight.old: 0 lines of the table match"),
        (TABLE, state(**{"old.layer1.weight": np.ones(3)}), "old.layer1.weight: 0 lines of the table match"),
        ((*TABLE, Rule(r".*\.bias", "params/x")), state(), "layer1.bias: 2 lines of the table match"),
        (
            (*TABLE, Rule("again", "params/layer1/bias")),
            state(again=np.ones(3, np.float32)),
            "again: becomes params/layer1/bias, as another entry does",
        ),
        (
            TABLE,
            state(**{"layer2.bias": np.ones(3, np.float32)}),
            "layer2.bias: becomes params/layer2/bias, which the model doesn't have",
        ),
        (TABLE, state(**{"layer1.bias": None}), "params/layer1/bias: no entry becomes this leaf"),
        (
            TABLE,
            state(**{"layer1.weight": np.zeros((2, 3), np.float32)}),
            "layer1.weight: becomes float32(3, 2), but params/layer1/kernel is float32(2, 3)",
        ),
        (
            TABLE,
            state(**{"layer1.bias": np.ones(3, np.float16)}),
            "layer1.bias: becomes float16(3,), but params/layer1/bias is float32(3,)",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(table, arrays, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        map_arrays(table, arrays, EXPECTED)


def test_all_that_is_wrong_is_listed():
    with pytest.raises(ValueError, match=r"other: 0 lines.*no entry becomes") as error:
        map_arrays(TABLE, state(other=np.ones(1), **{"layer1.bias": None}), EXPECTED)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("name", FULL_SIZE)
def test_each_table_fits_its_network_at_full_size(name):
    recipe = FULL_SIZE[name]()
    with torch.device("meta"):
        layout = recipe.build_network().state_dict()
    # One zero seen as a whole array takes no memory.
    arrays = {key: np.broadcast_to(np.float32(0), tuple(tensor.shape)) for key, tensor in layout.items()}
    mapped = map_arrays(recipe.table, arrays, variable_shapes(recipe.model, recipe.image_shape))
    assert mapped.paths.keys() | mapped.left_out.keys() == layout.keys()
    assert len(set(mapped.paths.values())) == len(mapped.paths)
    if name == "unet":
        assert len(layout) == 118
        assert len(mapped.left_out) == 18
        assert len(flatten_dict(mapped.variables["params"])) == 64
        assert len(flatten_dict(mapped.variables["batch_stats"])) == 36


def test_the_decoder_of_the_classifiers_unet_is_left_out_by_name():
    recipe = FULL_SIZE["unet-classifier"]()
    with torch.device("meta"):
        layout = recipe.build_network().state_dict()
    lines = [line for line in recipe.table if isinstance(line, LeftOut) and "decoder" in line.reason]
    left_out = {key for key in layout for line in lines if re.fullmatch(line.pattern, key)}
    assert left_out == {key for key in layout if re.match(r"unet\.(upconv|decoder|conv)", key)}


@settings(deadline=None, max_examples=25)
@given(*[st.integers(1, 4)] * 4)
def test_kernels_compute_what_pytorch_computes(outputs, inputs, height, width):
    random = np.random.default_rng(0)
    weight = random.normal(size=(outputs, inputs, height, width)).astype(np.float32)
    x = random.normal(size=(2, inputs, height + 1, width + 2)).astype(np.float32)
    expected = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight)).numpy()
    dimensions = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(
        x.transpose(0, 2, 3, 1), conv_kernel(weight), (1, 1), "VALID", dimension_numbers=dimensions
    )
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(outputs=st.integers(1, 5), channels=st.integers(1, 5), size=st.integers(1, 4))
def test_a_dense_layer_behind_a_flatten_computes_what_pytorch_computes(outputs, channels, size):
    random = np.random.default_rng(0)
    weight = random.normal(size=(outputs, channels * size * size)).astype(np.float32)
    x = random.normal(size=(2, channels, size, size)).astype(np.float32)
    expected = torch.nn.functional.linear(torch.from_numpy(x).flatten(1), torch.from_numpy(weight)).numpy()
    found = x.transpose(0, 2, 3, 1).reshape(2, -1) @ flattened_kernel(channels)(weight)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
