"""One device or eight, jit or pmap: the same losses, parameters and batch statistics, with dropout and augmentation."""

import pickle
from functools import partial

import jax
import numpy as np
import pytest
from kills import training
from spreads import SPREADS, write_results


@pytest.fixture(scope="module")
def found(processes, tmp_path_factory):
    path = tmp_path_factory.mktemp("spreads") / "results"
    options = {"jax_num_cpu_devices": 8}
    finished = processes.start(partial(write_results, path), options=options).wait()
    assert finished.code == 0, finished
    return pickle.loads(path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("network", ["simplecnn", "unet", "unet on features", "segmentation"])
@pytest.mark.parametrize("spread", list(SPREADS)[1:])
def test_a_batch_on_eight_devices_trains_as_on_one(found, network, spread):
    expected = found[network]["jit on one"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, found[network][spread], expected)


@pytest.mark.slow
def test_features_that_were_computed_before_train_as_the_images(found):
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, found["unet on features"]["jit on one"], found["unet"]["jit on one"])


@pytest.mark.slow
def test_a_batch_that_the_devices_can_not_divide_is_refused_with_one_that_they_can(processes, tmp_path):
    finished = processes.start(
        training(tmp_path / "run", "--batch-size", "12"), options={"jax_num_cpu_devices": 8}
    ).wait()
    assert finished.code == 2
    assert finished.err == "error: --batch-size 12: 8 devices can't divide it evenly; give 8 or 16\n"
    assert list(tmp_path.iterdir()) == []
    finished = processes.start(training(tmp_path / "run", "--devices", "9"), options={"jax_num_cpu_devices": 8}).wait()
    assert finished.err == "error: --devices 9: there are 8 devices; give at most that many, or all\n"
