"""A network of one's own: a table is proposed and proven, and what is wrong is told in one line."""

import json
import sys
from pathlib import Path

import jax
import network_pairs
import pytest
import torch
from flax.traverse_util import flatten_dict
from network_pairs import PAIRS
from orbax.checkpoint import v1 as orbax

from convert import mapping, transforms
from convert.checkpoint import Checkpoint
from convert.conversion import convert, convert_back
from convert.proposal import as_source
from jaxcnn.inference.pretrained import load_pretrained

MINE = """
from network_pairs import PAIRS, FlaxNorms, FlaxShared, TorchNorms
from convert.recipe import Recipe
from convert.rules import layer
from convert.transforms import conv_kernel

class Broken(FlaxNorms):
    def __call__(self, images, *, train):
        return images.no_such_thing

def recipe(model=PAIRS["norms"].model, shape=(16, 24, 3), **more):
    return Recipe(build_network=TorchNorms, model=model, image_shape=shape, **more)

RECIPE = recipe()
WRONG_EPSILON = recipe(FlaxNorms((1e-5, 1e-5, 1e-3, 1e-5)))
WRONG_IMAGES = recipe(shape=(16, 24, 4))
WRONG_TABLE = recipe(table=(*layer("conv", "Conv_0", conv_kernel),))
OTHER_MODEL = recipe(FlaxShared())
BROKEN = recipe(Broken())
NO_ARGUMENTS = PAIRS["branches"].recipe()
NUMBER = 3
"""


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def convert_mine(run_convert, tmp_path, monkeypatch):
    """Convert a checkpoint of the network with norms by a recipe of mine.py."""
    monkeypatch.syspath_prepend(str(Path(network_pairs.__file__).parent))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(MINE)
    torch.manual_seed(0)
    torch.save(PAIRS["norms"].torch_network().state_dict(), tmp_path / "mine.pt")
    return lambda name, *more: run_convert(
        "custom", f"{tmp_path / 'mine.py'}:{name}", tmp_path / "mine.pt", tmp_path / "OUT", *more
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_a_proposed_table_is_proven_and_kept_as_it_is_printed(name):
    pair = PAIRS[name]
    torch.manual_seed(1)
    state = pair.torch_network().state_dict()
    conversion = convert(Checkpoint(Path("mine.pt"), "", state), pair.recipe())
    assert not conversion.unproven
    names: dict[str, object] = {}
    exec(as_source(conversion.table), vars(transforms) | {"Rule": mapping.Rule, "LeftOut": mapping.LeftOut}, names)
    assert names["TABLE"] == conversion.table
    # And the way back, by the same table.
    back = convert_back(conversion.variables, pair.recipe(conversion.table))
    assert not back.unproven
    for key, tensor in back.state.items():
        assert torch.equal(tensor, state[key])
    assert {key for key in state if key not in back.state} == {
        key for key, reason in conversion.plan.left_out.items() if reason == "the PyTorch network doesn't run it"
    }


@pytest.mark.slow
def test_the_table_is_printed_and_the_tree_written(convert_mine, tmp_path):
    code, out, err = convert_mine("RECIPE")
    assert (code, err) == (0, "")
    assert '    Rule(r"up\\.weight", "params/ConvTranspose_0/kernel", flipped_conv_kernel),\n' in out
    manifest = json.loads((tmp_path / "OUT" / "manifest.json").read_text("utf-8"))
    assert (manifest["model"], manifest["fields"]) == ("FlaxNorms", {"epsilons": [1e-5] * 4})
    assert set(manifest["paths"].values()) == set(flatten_dict(orbax.load(tmp_path / "OUT"), sep="/"))


@pytest.mark.slow
def test_a_model_without_arguments_is_loaded_as_it_was_converted(convert_mine, tmp_path):
    torch.save(PAIRS["branches"].torch_network().state_dict(), tmp_path / "mine.pt")
    assert convert_mine("NO_ARGUMENTS")[0] == 0
    pretrained = load_pretrained(tmp_path / "OUT", model=PAIRS["branches"].model)
    assert pretrained.manifest.arguments == {}
    assert set(pretrained.variables["params"]) == {"Conv_0", "Conv_1"}


@pytest.mark.slow
def test_the_way_back_needs_the_table(convert_mine, run_convert, tmp_path):
    assert convert_mine("RECIPE")[0] == 0
    recipe = f"{tmp_path / 'mine.py'}:RECIPE"
    code, out, err = run_convert("to-torch", tmp_path / "OUT", tmp_path / "back.pt", "--recipe", recipe)
    assert (code, out) == (2, "")
    assert "mine.py: the recipe has no table, which the way back needs" in err
    code, _, err = run_convert("to-torch", tmp_path / "OUT", tmp_path / "back.pt")
    assert (code, "the model FlaxNorms is not in the table of models" in err) == (2, True)
    assert not (tmp_path / "back.pt").exists()


@pytest.mark.slow
def test_what_is_not_proven_is_refused_and_the_first_block_is_named(convert_mine, tmp_path):
    code, out, err = convert_mine("WRONG_EPSILON")
    assert code == 1
    assert "TABLE = (" in out  # To look at.
    assert "nothing was written: the first block that differs is image_norm: PyTorch gives mean" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MISSING", "MISSING is NoneType, not a convert.recipe.Recipe"),
        ("NUMBER", "NUMBER is int, not a convert.recipe.Recipe"),
        ("OTHER_MODEL", "no table could be proposed: no layer of the other network has the shapes of conv, "),
        ("WRONG_TABLE", "mine.py: the table doesn't fit: group_norm.weight: 0 lines of the table match"),
        ("BROKEN", "mine.py, line 9: AttributeError: "),
        ("WRONG_IMAGES", "mine.py: its networks fail: RuntimeError: Given groups=1, weight of size [8, 3, 3, 3]"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_in_one_line(convert_mine, tmp_path, name, message):
    code, out, err = convert_mine(name)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "mine.pt", "__pycache__"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def f(:\n", "mine.py, line 1: invalid syntax; correct it"),
        ("import nothing_of_that_name\n", "mine.py, line 1: ModuleNotFoundError"),
        ("\n\n1 / 0\n", "mine.py, line 3: ZeroDivisionError: division by zero; correct it"),
    ],
)
def test_a_file_that_is_no_python(convert_mine, tmp_path, content, message):
    (tmp_path / "mine.py").write_text(content)
    code, _, err = convert_mine("RECIPE")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_addresses_that_are_none(run_convert, tmp_path):
    for address, message in [
        ("mine.py", "is not of the form MY.py:NAME; give the file and the name of the recipe"),
        ("mine:RECIPE", "is not of the form MY.py:NAME; give the file and the name of the recipe"),
        (f"{tmp_path}/no.py:RECIPE", "no.py: no such file"),
    ]:
        code, _, err = run_convert("custom", address, "mine.pt", tmp_path / "OUT")
        assert (code, message in err) == (2, True)


def test_a_checkpoint_of_another_network(convert_mine, tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "mine.pt")
    code, _, err = convert_mine("RECIPE")
    assert code == 2
    assert "not a checkpoint of this network: missing: conv.weight, " in err
