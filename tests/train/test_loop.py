"""What is not finite is not kept: no part of a state between two checkpoints, no classifier after an epoch."""

import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from kills import training

import train.loop
from jaxcnn.runs.folder import Run, read_epochs
from train.loop import not_finite
from train.machine.background import write_behind
from train.state import TrainState, finite_parts

PARTS = {
    "params": "parameters",
    "batch_stats": "batch statistics",
    "average": "averaged weights",
    "opt_state": "optimizer's moments",
}


def state(**changed):
    tree = {"layer": {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}}
    return TrainState(**{"step": 3, "frozen": {}, **dict.fromkeys(PARTS, tree), **changed})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("field", "words"), PARTS.items())
def test_each_part_of_a_state_is_looked_at(field, words, bad):
    assert not_finite(finite_parts(state(**{field: {"layer": {"a": jnp.array([1.0, bad, 1.0])}}}))) == words


def test_a_finite_state_may_count_and_may_have_no_average():
    assert not_finite(finite_parts(state(average={}, opt_state=(jnp.int32(7), jnp.ones(2))))) == ""


def test_what_is_written_behind_comes_in_order_and_ends_with_what_fails():
    done = []

    def fail():
        raise OSError("full")

    def write():
        with write_behind() as behind:
            for action in (partial(done.append, 1), partial(done.append, 2), fail, partial(done.append, 3)):
                behind.do(action)

    with pytest.raises(OSError, match="full"):
        write()
    assert done == [1, 2]


def lose(split: str) -> None:
    """From here on, no image of the split has a finite loss."""
    evaluate = train.loop._evaluate

    def evaluate_without_loss(training, state, names):
        evaluated = evaluate(training, state, names)
        evaluated[split] = [(dataclasses.replace(of, loss=np.nan), outputs) for of, outputs in evaluated[split]]
        return evaluated

    train.loop._evaluate = evaluate_without_loss


@pytest.mark.slow
@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_epoch_without_a_finite_loss_ends_the_run_and_its_classifier_is_not_kept(processes, tmp_path, split):
    finished = processes.start(training(tmp_path / "run"), before=partial(lose, split)).wait()
    way_out = "start again with a lower --learning-rate and --overwrite"
    assert (finished.code, finished.err) == (1, f"error: the {split} loss is nan after epoch 1; {way_out}\n")
    run = Run(tmp_path / "run")
    assert read_epochs(run) == []
    assert not run.best.exists()
    assert not run.predictions("test").exists()
