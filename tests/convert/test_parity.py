"""A right conversion passes the parity check by far, and no wrong one passes it."""

import copy

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from convert.mapping import map_arrays
from convert.parity import TOLERANCE, Difference, compare, differences, flax_outputs, random_images, torch_outputs
from jaxcnn.errors import UserError
from jaxcnn.models.table import variable_shapes


@pytest.fixture(scope="module")
def mapped(case):
    arrays = {key: tensor.numpy() for key, tensor in case.network.state_dict().items()}
    return map_arrays(case.recipe.table, arrays, variable_shapes(case.recipe.model, case.recipe.image_shape))


def mutations(path, leaf, original):
    """Ways to get one array wrong that its shape may not tell; `original` is PyTorch's array."""
    yield "never filled", np.full_like(leaf, path.endswith(("scale", "var")))
    if leaf.ndim == 4:
        yield "height and width exchanged", leaf.swapaxes(0, 1)
        yield "in and out exchanged", leaf.swapaxes(2, 3)
        yield "flipped", leaf[::-1, ::-1]
    if leaf.ndim == 2:
        yield "transposed", leaf.T
        yield "not permuted from CHW to HWC", original.T


def wrong_trees(case, mapped):
    """Every tree with one array wrong, or with two of one shape exchanged."""
    leaves = flatten_dict(mapped.variables, sep="/")
    originals = {mapped.paths[key]: case.network.state_dict()[key].numpy() for key in mapped.paths}
    order = list(mapped.paths.values())
    for index, path in enumerate(order):
        for what, wrong in mutations(path, leaves[path], originals[path]):
            if wrong.shape == leaves[path].shape and not np.array_equal(wrong, leaves[path]):
                yield path, what, leaves | {path: wrong}
        neighbours = [
            other for other in order[index + 1 :] + order[:index] if leaves[other].shape == leaves[path].shape
        ]
        if neighbours:
            exchanged = {path: leaves[neighbours[0]], neighbours[0]: leaves[path]}
            yield path, f"exchanged with {neighbours[0]}", leaves | exchanged


def test_a_right_conversion_is_far_within_the_tolerance(case, mapped):
    images = random_images(case.recipe.image_shape)
    for difference in compare(case.recipe.blocks, case.network, case.recipe.model, mapped.variables, images):
        assert difference.relative < TOLERANCE / 10, difference


@pytest.mark.slow
def test_every_wrong_array_is_caught(case, mapped):
    blocks = case.recipe.blocks
    images = random_images(case.recipe.image_shape, count=1)
    expected = torch_outputs(case.network, [block.torch_module for block in blocks], images)
    tried, survivors = set(), []
    for path, what, leaves in wrong_trees(case, mapped):
        found = flax_outputs(case.recipe.model, unflatten_dict(leaves, sep="/"), images)
        if all(difference.within_tolerance for difference in differences(blocks, expected=expected, found=found)):
            survivors.append((path, what))
        tried.add(path)
    assert not survivors
    assert tried == set(mapped.paths.values())


def test_the_flatten_is_really_put_to_the_test(case, mapped):
    """On a map of one pixel the two orders are the same, and leaving the permutation out would be no mistake."""
    of_hidden = [what for path, what, _ in wrong_trees(case, mapped) if path == "params/hidden/kernel"]
    assert any("HWC" in what for what in of_hidden) == ("hidden" in mapped.variables["params"])


def test_every_block_with_weights_is_compared(case, mapped):
    compared = {block.flax_module for block in case.recipe.blocks}
    for path in flatten_dict(mapped.variables, sep="/"):
        module = path.split("/", 1)[1].rsplit("/", 1)[0]
        # A stage of the U-Net is one block; what happens in an upconv is seen in the decoder that it feeds.
        parents = {module, module.rsplit("/", 1)[0]}
        assert compared & parents or module.startswith("upconv")


def test_the_images_have_no_symmetry():
    image = random_images((32, 32, 3), count=1)[0]
    for other in (image[::-1], image[:, ::-1], image.swapaxes(0, 1), image[::-1, ::-1]):
        assert abs(np.corrcoef(image.ravel(), other.ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(image, random_images((32, 32, 3), count=1)[0])


@pytest.mark.parametrize("relative", [1.01e-4, 1.0, float("inf"), float("nan")])
def test_what_is_not_within_the_tolerance(relative):
    assert not Difference("block", (1,), 0.0, relative).within_tolerance
    assert Difference("block", (1,), 0.0, 1e-4).within_tolerance


def test_a_block_that_gives_nothing_proves_nothing(case, mapped):
    """Where both sides give zeros they agree, whatever the arrays are."""
    network = copy.deepcopy(case.network)
    for tensor in network.state_dict().values():
        tensor.zero_()
    images = random_images(case.recipe.image_shape)
    zeros = jax.tree.map(np.zeros_like, mapped.variables)
    found = compare(case.recipe.blocks, network, case.recipe.model, zeros, images)
    assert {difference.absolute for difference in found} == {0.0}
    assert {difference.block for difference in found if difference.within_tolerance} <= {"mask"}  # sigmoid(0) is 0.5


def test_both_sides_need_the_cpu(case, mapped, monkeypatch):
    def no_cpu(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    images = random_images(case.recipe.image_shape)
    with pytest.raises(UserError, match=r"JAX_PLATFORMS=cuda leaves out the CPU, .*; set it to cuda,cpu"):
        flax_outputs(case.recipe.model, mapped.variables, images)
