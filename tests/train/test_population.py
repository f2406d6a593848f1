"""Many models in one program: each is what it would have been alone, on one device or many, killed or not."""

import pickle
import re
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from kills import OPTIONS, Moment, assert_same_run, killed_at
from kills import train as train_alone
from populations import write_results
from processes import command
from tiny import TINY

from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import partition
from jaxcnn.models.table import MODELS
from jaxcnn.runs.folder import Run, open_run, open_sweep, read_epochs, read_predictions
from train.images import frame_splits
from train.learner import build_learner
from train.machine.devices import Placement
from train.options import make_config
from train.sweep.grid import make_models, parse_grid
from train.sweep.groups import group
from train.sweep.population import compile_population, largest_population


def groups(config, texts, at_once):
    models = make_models(config, parse_grid(config, texts), None)
    return [[int(model.name.split("-")[0]) for model in of] for of in group(models, Placement(), at_once)]


def test_what_one_program_can_train_is_trained_together():
    texts = ["batch_size=4,8", "learning_rate=0.1,0.2", "seed=0,1", "weight_decay=0.1"]
    assert groups(make_config("simplecnn"), texts, 99) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert groups(make_config("simplecnn"), texts, 3) == [[1, 2, 3], [4], [5, 6, 7], [8]]
    assert groups(make_config("simplecnn"), texts, "auto") == [[1], [2], [3], [4], [5], [6], [7], [8]]  # on a CPU


def test_u_nets_with_random_encoders_of_other_seeds_are_trained_apart():
    texts = ["seed=0,1", "unet_learning_rate=1e-4,1e-5"]
    assert groups(make_config("unet", encoder="weights"), texts, 99) == [[1, 2, 3, 4]]
    assert groups(make_config("unet", encoder="random"), texts, 99) == [[1, 2], [3, 4]]


@pytest.fixture(scope="module")
def found(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("populations")
    options = {"jax_num_cpu_devices": 8}
    finished = processes.start(partial(write_results, folder), options=options).wait()
    assert finished.code == 0, finished
    return pickle.loads((folder / "results.pickle").read_bytes()), finished.out


@pytest.mark.slow
@pytest.mark.parametrize(("network", "as_alone"), [("simplecnn", None), ("unet", None), ("unet on features", "unet")])
def test_a_member_becomes_what_it_becomes_alone(found, network, as_alone):
    """Features are made of the images by what is frozen: to train on them is to train on the images."""
    members, alone = found[0][network]["members"], found[0][as_alone or network]["alone"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(alone))
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, {place: members[place] for place in alone}, alone)
    # The members differ, in what they start from and in how fast they learn.
    assert all(np.abs(members[0]["losses"] - other["losses"]).min() > 0.001 for other in members[1:])


@pytest.mark.slow
def test_members_are_shared_out_to_the_devices_and_their_memory_is_told(found):
    results, out = found
    assert (results["simplecnn"]["devices"], results["simplecnn"]["slots"]) == (5, 10)
    assert (results["unet"]["devices"], results["unet"]["slots"]) == (2, 2)
    lines = re.findall(r"^memory +(\S+) MB per model, (\S+) MB in all$", out, re.MULTILINE)
    (each, whole), *others = [tuple(map(float, line)) for line in lines]
    assert whole == pytest.approx(10 * each, abs=0.5)
    assert len(others) == 2
    # The least that a model can need is its parameters, and what is computed from a batch is more than that here.
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(results["simplecnn"]["members"][0]["params"])) < each * 1e6 < 1e8


@pytest.mark.slow
def test_as_many_are_trained_at_once_as_the_memory_holds(capsys, monkeypatch):
    """Of three the program is compiled, and just enough memory for it is stated; then a little less."""
    monkeypatch.setitem(MODELS, "tiny", TINY)
    config = make_config("tiny", image_size=16, max_images=24, batch_size=4)
    dataset, _ = partition(load_dataset("phantom", 24), "leak-free", 0.1, seed=0)
    framed = frame_splits(config.training, dataset)
    learners = [build_learner(config.replace(seed=n), dataset, framed, Run(Path("unused"))) for n in range(3)]
    compile_population(learners, jax.devices()[:1])
    (whole,) = re.findall(r"^memory .* per model, (\S+) MB in all$", capsys.readouterr().out, re.MULTILINE)
    enough = int(1e6 * float(whole) / 0.85)
    largest = partial(largest_population, learners[0], jax.devices()[:1])
    assert largest(int(1.05 * enough), 3) == largest(int(1.05 * enough), 9) == 3
    assert largest(int(0.9 * enough), 3) == 2
    assert largest(int(1.05 * enough), 2) == 2
    assert largest(1, 3) == 1
    assert largest(None, 3) is None


def sweeping(folder, *more: str):
    grid = ["--grid", "seed=0,1", "--at-once", "2", *more]
    return command("train.__main__", "sweep", "tiny", "--sweep-dir", str(folder), *OPTIONS, *grid)


@pytest.mark.slow
def test_a_population_that_is_killed_ends_with_the_same_bits_and_its_members_can_go_on_alone(
    processes, expected, tmp_path
):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert processes.start(sweeping(whole)).wait().code == 0
    moments = (
        # One member has its first checkpoint, the other none; then one has a line of its first epoch, the other none.
        "os.rename 2-seed=1/checkpoints/2.orbax-checkpoint-tmp",
        "os.rename 2-seed=1/.metrics-*.jsonl",
    )
    for change in moments:
        killed = processes.start(sweeping(folder, "--resume"), before=killed_at(folder, Moment(change))).wait()
        assert killed.code == -9, killed
    alone = shutil.copytree(folder / "1-seed=0", tmp_path / "alone")

    finished = processes.start(sweeping(folder, "--resume")).wait()
    assert finished.code == 0, finished
    for run in open_sweep(whole):
        assert_same_run(folder / run.name, run.folder)
    assert train_alone(processes, alone, "--resume").code == 0

    # Adam turns rounding into steps: what is the same to the bit but for rounding is close after ten of them.
    for run in (open_run(alone), open_run(folder / "1-seed=0")):
        for line, other in zip(read_epochs(run), read_epochs(open_run(expected)), strict=True):
            assert line["train_loss"] == pytest.approx(other["train_loss"], rel=0.02)
            assert line["learning_rate"] == other["learning_rate"]
        predictions, others = (read_predictions(of, "test") for of in (run, open_run(expected)))
        assert predictions.names == others.names
