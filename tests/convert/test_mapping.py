"""The tables leave nothing to chance: every number is used once, every leaf is filled once, and with what fits."""

import re

import flax.linen as nn
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from convert.mapping import LeftOut, Rule, plan
from convert.recipes import recipe_for
from convert.transforms import (
    Flattened,
    FromHeads,
    Heads,
    Part,
    channels_last,
    conv_kernel,
    dense_kernel,
    flipped_conv_kernel,
)
from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.models.resnet import DEPTHS, ResNet, ResNetClassifier

FULL_SIZE = {
    "unet": UNet(),
    "simplecnn": SimpleCNN(gate="softmax"),
    "unet-classifier": UNetClassifier(),
    **{name: ResNet(block=block, blocks=blocks) for name, (block, blocks) in DEPTHS.items()},
    "classifier on a resnet18": ResNetClassifier(),
}
TABLE = (
    Rule(r"layer(\d)\.weight", r"params/layer\1/kernel", dense_kernel),
    Rule(r"layer(\d)\.bias", r"params/layer\1/bias"),
    LeftOut(r"layer\d\.old", "from an older version"),
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
        "layer1.old": np.array(5),
        "layer1.num_batches_tracked": np.array(7),
    }
    return {key: array for key, array in (arrays | changes).items() if array is not None}


def map_arrays(table, arrays, expected, shared=None):
    """The plan, and the tree that it fills with the arrays."""
    planned = plan(table, {key: array.shape for key, array in arrays.items()}, expected, shared)
    return planned, planned.to_flax(arrays)


def test_what_fits_is_mapped_and_accounted_for():
    planned, variables = map_arrays(TABLE, state(), EXPECTED)
    np.testing.assert_array_equal(variables["params"]["layer1"]["kernel"], [[0, 2, 4], [1, 3, 5]])
    assert planned.paths == {"layer1.weight": "params/layer1/kernel", "layer1.bias": "params/layer1/bias"}
    assert planned.left_out == {
        "layer1.old": "from an older version",
        "layer1.num_batches_tracked": "a counter that only BatchNorm with momentum=None uses",
    }


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
            "layer1.weight: becomes (3, 2), but params/layer1/kernel is (2, 3)",
        ),
        (
            TABLE,
            state(**{"layer1.bias": np.ones(3, np.float16)}),
            "layer1.bias: is float16, but params/layer1/bias is float32",
        ),
        # What is no order of the entry's numbers.
        (
            (Rule(r"layer1\.weight", "params/layer1/kernel", lambda weight: weight.T[:, [0, 0, 2]]), *TABLE[1:]),
            state(),
            "layer1.weight: 1 line of the table matches, expected one that takes each number once",
        ),
        (
            (Rule(r"layer1\.weight", "params/layer1/kernel", lambda weight: weight.reshape(7)), *TABLE[1:]),
            state(),
            "layer1.weight: cannot reshape array of size 6 into shape (7,)",
        ),
        (
            (Rule(r"layer1\.weight", r"params/layer\2/kernel", dense_kernel), *TABLE[1:]),
            state(),
            "layer1.weight: invalid group reference 2",
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


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_each_table_fits_its_network_at_full_size(name):
    recipe = recipe_for(FULL_SIZE[name], 128, "none")
    layout = {key: tuple(tensor.shape) for key, tensor in recipe.build_network().state_dict().items()}
    planned = plan(recipe.table, layout, recipe.shapes())
    assert planned.paths.keys() | planned.left_out.keys() == layout.keys()
    assert len(set(planned.paths.values())) == len(planned.paths)
    if name == "unet":
        assert len(layout) == 118
        assert len(planned.left_out) == 18
        assert sum(path.startswith("params/") for path in planned.expected) == 64
        assert sum(path.startswith("batch_stats/") for path in planned.expected) == 36
    # As torchvision's documentation has them.
    parameters = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
    if name in parameters:
        of_flax = [leaf for path, leaf in planned.expected.items() if path.startswith("params/")]
        assert sum(np.prod(leaf.shape) for leaf in of_flax) == parameters[name]


def test_the_decoder_of_the_classifiers_unet_is_left_out_by_name():
    recipe = recipe_for(FULL_SIZE["unet-classifier"], 128, "none")
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
@given(*[st.integers(1, 4)] * 4)
def test_a_dense_layer_behind_a_flatten_computes_what_pytorch_computes(outputs, channels, height, width):
    random = np.random.default_rng(0)
    weight = random.normal(size=(outputs, channels * height * width)).astype(np.float32)
    x = random.normal(size=(2, channels, height, width)).astype(np.float32)
    expected = torch.nn.functional.linear(torch.from_numpy(x).flatten(1), torch.from_numpy(weight)).numpy()
    found = x.transpose(0, 2, 3, 1).reshape(2, -1) @ Flattened(channels, height, width)(weight)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("transform", "transposes"), [(conv_kernel, True), (flipped_conv_kernel, False)])
def test_transposed_convolutions_compute_what_pytorch_computes(transform, transposes):
    random = np.random.default_rng(0)
    weight = random.normal(size=(2, 3, 2, 3)).astype(np.float32)
    x = random.normal(size=(1, 2, 4, 5)).astype(np.float32)
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    expected = torch.nn.functional.conv_transpose2d(*tensors, stride=(3, 2)).numpy()
    layer = nn.ConvTranspose(3, (2, 3), (3, 2), padding="VALID", use_bias=False, transpose_kernel=transposes)
    found = layer.apply({"params": {"kernel": transform(weight)}}, x.transpose(0, 2, 3, 1))
    # PyTorch ends with the last window; Flax fills up to a multiple of the strides.
    rows, columns = expected.shape[2:]
    np.testing.assert_allclose(found[:, :rows, :columns], expected.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


TRANSFORMS = [
    (conv_kernel, (4, 3, 2, 5)),
    (flipped_conv_kernel, (4, 3, 2, 5)),
    (dense_kernel, (4, 6)),
    (channels_last, (1, 3, 4, 5)),
    (Flattened(3, 2, 4), (5, 24)),
    (Heads(2), (6, 5)),
    (Heads(2), (6,)),
    (FromHeads(3), (5, 6)),
]


@pytest.mark.parametrize(("transform", "shape"), TRANSFORMS)
def test_the_way_back_gives_the_same_bits(transform, shape):
    entry = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = {"params": {"x": jax.ShapeDtypeStruct(transform(entry).shape, "float32")}}
    planned, variables = map_arrays([Rule("x", "params/x", transform)], {"x": entry}, expected)
    np.testing.assert_array_equal(variables["params"]["x"], transform(entry))
    np.testing.assert_array_equal(planned.to_torch(variables)["x"], entry)


def test_an_entry_of_several_parts_becomes_several_leaves_and_one_entry_again():
    stacked = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    table = [Rule("qkv", f"params/{name}", Part(place, 3, Heads(2))) for place, name in enumerate("qkv")]
    expected = {"params": {name: jax.ShapeDtypeStruct((5, 2, 2), "float32") for name in "qkv"}}
    planned, variables = map_arrays(table, {"qkv": stacked}, expected)
    assert planned.paths == {"qkv": "params/q, params/k, params/v"}
    np.testing.assert_array_equal(variables["params"]["k"], stacked[4:8].T.reshape(5, 2, 2))
    np.testing.assert_array_equal(planned.to_torch(variables)["qkv"], stacked)
    with pytest.raises(ValueError, match="qkv: 3 lines of the table match, expected one that takes each number once"):
        map_arrays([*table[:2], Rule("qkv", "params/v", Part(1, 3, Heads(2)))], {"qkv": stacked}, expected)


def test_an_entry_of_a_parameter_that_has_another_name_needs_no_line():
    arrays = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    expected = {"params": {"a": jax.ShapeDtypeStruct((3,), "float32")}}
    planned, variables = map_arrays([Rule("a", "params/a")], arrays, expected, shared={"b": "a"})
    assert planned.left_out == {"b": "the same parameter as a"}
    assert set(planned.to_torch(variables)) == {"a", "b"}
    with pytest.raises(ValueError, match="b: 0 lines of the table match"):
        map_arrays([Rule("a", "params/a")], arrays, expected)
