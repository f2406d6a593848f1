"""A right conversion passes the proof by far, and no wrong one passes it."""

import copy
import dataclasses
from itertools import islice

import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from network_pairs import PAIRS, FlaxDepthwise, FlaxNorms, FlaxTransformer

from convert.mapping import plan
from convert.proof import (
    TOLERANCE,
    Block,
    Difference,
    differences,
    find_blocks,
    flax_calls,
    prove,
    redrawn,
    shared_entries,
    torch_calls,
)
from convert.proposal import propose_table
from convert.recipe import Recipe
from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sides:
    """A network on both sides, with what it takes to compare them."""

    network: torch.nn.Module
    recipe: Recipe
    plan: object

    def prove(self, model=None):
        recipe = self.recipe if model is None else dataclasses.replace(self.recipe, model=model)
        return prove(self.network, recipe, self.plan, copy.deepcopy(self.network.state_dict()), recipe.random_images(1))


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax's norms divide numbers of other types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def sides_of(network, recipe):
    layout = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    table = recipe.table or propose_table(recipe)
    return Sides(network, recipe, plan(table, layout, recipe.shapes(), shared_entries(network)))


@pytest.fixture(scope="module")
def sides(case):
    return sides_of(copy.deepcopy(case.network), case.recipe)


@pytest.fixture(scope="module")
def pairs():
    """The pairs of networks by their names, each made when it is first asked for."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = sides_of(PAIRS[name].torch_network().eval(), PAIRS[name].recipe())
        return made[name]

    return get


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


def wrong_trees(sides):
    """Every tree with one array wrong, or with two of one shape exchanged."""
    state = {key: tensor.numpy() for key, tensor in sides.network.state_dict().items()}
    leaves = flatten_dict(sides.plan.to_flax(state), sep="/")
    originals = {move.path: state[move.key] for move in sides.plan.moves}
    order = list(originals)
    for index, path in enumerate(order):
        for what, wrong in mutations(path, leaves[path], originals[path]):
            if wrong.shape == leaves[path].shape and not np.array_equal(wrong, leaves[path]):
                yield path, what, leaves | {path: wrong}
        neighbours = [
            other for other in order[index + 1 :] + order[:index] if leaves[other].shape == leaves[path].shape
        ]
        # Two layers may have one kernel.
        if neighbours and not np.array_equal(leaves[path], leaves[neighbours[0]]):
            exchanged = {path: leaves[neighbours[0]], neighbours[0]: leaves[path]}
            yield path, f"exchanged with {neighbours[0]}", leaves | exchanged


def survivors(sides, trees):
    """The mistakes that no block shows, and how many there were."""
    images = sides.recipe.random_images(1)
    expected = torch_calls(sides.network, images)
    missed, planted = [], 0
    for path, what, leaves in trees:
        found = flax_calls(sides.recipe, unflatten_dict(leaves, sep="/"), images)
        blocks = dict.fromkeys(find_blocks(sides.plan, expected, found).values())
        if all(difference.within_tolerance for difference in differences(blocks, expected=expected, found=found)):
            missed.append((path, what))
        planted += 1
    return missed, planted


@pytest.mark.slow
def test_a_right_conversion_is_far_within_the_tolerance(sides):
    for difference in sides.prove():
        assert difference.relative < TOLERANCE / 10, difference


@pytest.mark.slow
def test_every_wrong_array_is_caught(sides, case):
    # The ResNets have the same few kinds of layers again and again.
    trees = islice(wrong_trees(sides), 60 if "ResNet" in type(case.recipe.model).__name__ else None)
    missed, planted = survivors(sides, trees)
    print(f"{planted} planted, {planted - len(missed)} caught")
    assert not missed
    assert planted >= 60


# An attention's softmax doesn't change when all keys are shifted alike: that bias computes nothing.
NO_MISTAKE = "MultiHeadDotProductAttention_0/key/bias"


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_every_wrong_array_of_other_kinds_of_networks_is_caught(name, pairs):
    sides = pairs(name)
    randomize(sides)
    trees = (tree for tree in wrong_trees(sides) if NO_MISTAKE not in tree[0])
    missed, planted = survivors(sides, trees)
    print(f"{planted} planted, {planted - len(missed)} caught")
    assert not missed
    assert planted


def randomize(sides):
    """Weights without the zeros and ones that hide a mistake, which `prove` draws for itself."""
    state = redrawn(sides.network, sides.network.state_dict(), shared_entries(sides.network), 1.0)
    sides.network.load_state_dict(state)


SLIPS = {
    "BatchNorm's epsilon, 1e-6": ("depthwise", FlaxDepthwise(epsilon=1e-6)),
    "BatchNorm's epsilon, 1e-3": ("depthwise", FlaxDepthwise(epsilon=1e-3)),
    "padding as TensorFlow's": ("depthwise", FlaxDepthwise(padding="SAME")),
    "padding on the wrong sides": ("depthwise", FlaxDepthwise(padding=((0, 2), (1, 1)))),
    "GroupNorm's epsilon, Flax's default": ("norms", FlaxNorms((1e-6, 1e-5, 1e-5, 1e-5))),
    "InstanceNorm's epsilon, Flax's default": ("norms", FlaxNorms((1e-5, 1e-6, 1e-5, 1e-5))),
    "LayerNorm's epsilon over an image": ("norms", FlaxNorms((1e-5, 1e-5, 1e-6, 1e-5))),
    "LayerNorm's epsilon over channels": ("norms", FlaxNorms((1e-5, 1e-5, 1e-5, 1e-6))),
    "LayerNorm's epsilon, PyTorch's default": ("transformer", FlaxTransformer(epsilon=1e-5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_the_flax_model_is_caught_by_random_weights(slip, pairs):
    name, model = SLIPS[slip]
    assert all(difference.within_tolerance for difference in pairs(name).prove())
    wrong = [difference for difference in pairs(name).prove(model) if not difference.within_tolerance]
    assert wrong
    assert "PyTorch gives mean" in wrong[0].detail


@pytest.mark.slow
def test_a_mistake_that_the_checkpoint_hides_is_found(pairs):
    """With a scale of 0 nothing of a block is seen: a residual that starts as the identity, as trainers like it."""
    sides = pairs("depthwise")
    hidden = copy.deepcopy(sides.network)
    with torch.no_grad():
        hidden.project[1].weight.zero_()
        hidden.project[1].bias.zero_()
    state, images = hidden.state_dict(), sides.recipe.random_images(1)
    assert all(of.within_tolerance for of in prove(hidden, sides.recipe, sides.plan, state, images))
    # The statistics in the wrong order of channels.
    moves = tuple(
        dataclasses.replace(move, places=move.places[::-1]) if move.key == "project.1.running_mean" else move
        for move in sides.plan.moves
    )
    slipped = dataclasses.replace(sides.plan, moves=moves)
    alone = [of for of in prove(hidden, sides.recipe, slipped, state, images, gains=()) if not of.within_tolerance]
    assert [of.block for of in alone] == ["project.1"]
    assert alone[0].says_nothing
    first = next(of for of in prove(hidden, sides.recipe, slipped, state, images) if not of.within_tolerance)
    assert first.block == "project.1"
    assert not first.says_nothing


def test_the_flatten_is_really_put_to_the_test(sides):
    """On a map of one pixel the two orders are the same, and leaving the permutation out would be no mistake."""
    of_hidden = [what for path, what, _ in wrong_trees(sides) if path == "params/hidden/kernel"]
    assert any("HWC" in what for what in of_hidden) == ("params/hidden/kernel" in sides.plan.expected)


@pytest.mark.slow
def test_every_layer_with_weights_is_a_block_of_its_own(sides):
    images = sides.recipe.random_images(1)
    calls = torch_calls(sides.network, images)
    state = {key: tensor.numpy() for key, tensor in sides.network.state_dict().items()}
    blocks = find_blocks(sides.plan, calls, flax_calls(sides.recipe, sides.plan.to_flax(state), images))
    assert set(blocks) == {*sides.plan.paths, ""}
    for key, block in blocks.items():
        assert block.torch_module == key.rpartition(".")[0]
    # The output comes last, and the first layer first.
    assert list(blocks)[-1] == ""


@pytest.mark.slow
def test_an_attention_is_one_block_and_its_output_projection_is_seen(pairs):
    sides = pairs("transformer")
    names = [difference.block for difference in sides.prove()]
    assert "blocks.0.attn" in names  # A MultiheadAttention, whose out_proj is a module that is never called.
    assert "blocks.1.attn" in names  # Query, key and value in one layer of PyTorch.
    assert not any(name.startswith(("blocks.0.attn.", "blocks.1.attn.qkv")) for name in names)


def test_what_changes_nothing_can_not_be_proven(pairs):
    """An entry that becomes a leaf but is never used on one side."""
    sides = pairs("transformer")
    network = copy.deepcopy(sides.network)
    network.blocks[0].attn.out_proj.weight.requires_grad_(False)
    forward = network.blocks[0].attn.forward
    network.blocks[0].attn.forward = lambda *inputs, **options: (
        torch.zeros_like(forward(*inputs, **options)[0]) + inputs[0],
        None,
    )
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.out_proj\.weight.*changes no output .* with a LeftOut"):
        prove(network, sides.recipe, sides.plan, network.state_dict(), sides.recipe.random_images(1))


def test_a_layer_that_runs_twice_must_run_twice_on_both_sides():
    array = np.ones((1, 2), np.float32)
    (difference,) = differences([Block("a", "b")], expected={"a": [[array], [array]]}, found={"b": [[array]]})
    assert not difference.within_tolerance
    assert difference.detail == "runs 2 times in PyTorch, 1 times in Flax"


def test_outputs_of_other_shapes_or_numbers_are_no_proof():
    image, flat = np.ones((1, 2, 3, 4), np.float32), np.ones((1, 24), np.float32)
    for expected, found, detail in [
        ([image], [flat], "has the shape (1, 2, 3, 4) in PyTorch, (1, 24) in Flax"),
        ([image], [image.swapaxes(1, 2)], "has the shape (1, 2, 3, 4) in PyTorch, (1, 3, 2, 4) in Flax"),
        ([image], [], "gives 1 arrays in PyTorch, 0 in Flax"),
        ([image, image], [image], "gives 2 arrays in PyTorch, 1 in Flax"),
    ]:
        (difference,) = differences([Block("", "")], expected={"": [expected]}, found={"": [found]})
        assert (difference.within_tolerance, difference.detail) == (False, detail)


def test_the_images_have_no_symmetry():
    image = dataclasses.replace(PAIRS["norms"].recipe(), proof_shape=(32, 32, 3)).random_images(1)[0]
    for other in (image[::-1], image[:, ::-1], image.swapaxes(0, 1), image[::-1, ::-1]):
        assert abs(np.corrcoef(image.ravel(), other.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("relative", [1.01e-4, 1.0, float("inf"), float("nan")])
def test_what_is_not_within_the_tolerance(relative):
    assert not Difference("block", (1,), 0.0, relative).within_tolerance
    assert Difference("block", (1,), 0.0, 1e-4).within_tolerance


def test_a_block_that_gives_nothing_proves_nothing():
    """Where both sides give zeros they agree, whatever the arrays are."""
    zeros = np.zeros((1, 2), np.float32)
    (difference,) = differences([Block("a", "b")], expected={"a": [[zeros]]}, found={"b": [[zeros]]})
    assert difference.absolute == 0
    assert not difference.within_tolerance


def test_both_sides_need_the_cpu(pairs, monkeypatch):
    def no_cpu(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    sides = pairs("branches")
    monkeypatch.setattr(jax, "local_devices", no_cpu)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=r"JAX_PLATFORMS=cuda leaves out the CPU, .*; set it to cuda,cpu"):
        sides.prove()
