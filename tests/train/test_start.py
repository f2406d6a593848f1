"""A run can start from another one: from its weights, and from its optimizer's moments."""

import re
from functools import partial

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from kills import OPTIONS, Moment, assert_same_run, killed_at, load_arrays
from kills import train as train_tiny
from processes import command
from random_network import random_network
from scored_runs import DATA, ENVIRONMENT

from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.load import load_dataset
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.errors import UserError
from jaxcnn.inference.trained import Trained, load_best, save_trained
from jaxcnn.models import MODELS
from jaxcnn.runs.folder import Run, create_run, read_config
from train.learner import check_learner
from train.network import build_network, draw_variables
from train.options import make_config
from train.start import start_moments

NARROW = {name: {"width": 0.02} | ({"encoder": "random"} if of.encoder else {}) for name, of in MODELS.items()}
# The ResNets differ in depth alone.
ONE_OF_EACH = {of.module: name for name, of in reversed(MODELS.items())}.values()
# A step of Adam is as long as the learning rate: nowhere longer than this.
STANDING = ("--learning-rate", "1e-30", "--epochs", "1")


def save_start(folder, model, classes=CLASSES, size=128, **options):
    """A run whose best checkpoint has random weights, and the configuration that has such a network."""
    config = make_config(model, **NARROW[model] | options)
    network = config.architecture.build(config.network, len(classes), None)
    _, variables = random_network(network, (1, size, size, 1))
    run = create_run(folder, config.to_json(), DATA, ENVIRONMENT, overwrite=False)
    save_trained(run.best, Trained(network, variables, Preprocessing(), (size, size, 1), classes, epoch=1))
    return config.replace(start_from=str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_all_weights_and_batch_statistics_of_every_model_come_from_the_run(tmp_path, model):
    config = save_start(tmp_path / "start", model)
    if MODELS[model].encoder:
        # The run has it; so nobody needs to name it again, and more of it may learn than before.
        config = config.replace(encoder=None, train_from="head")
    network = build_network(config, len(CLASSES), (128, 128, 1))
    shapes, _ = draw_variables(network, (128, 128, 1))
    saved = flatten_dict(load_best(Run(tmp_path / "start")).variables)
    assert network.given.keys() == saved.keys() == flatten_dict(shapes).keys()
    for path, leaf in saved.items():
        np.testing.assert_array_equal(network.given[path], leaf)


@pytest.mark.slow
def test_without_a_step_the_weights_stay_those_of_the_best_checkpoint(processes, expected, tmp_path):
    assert train_tiny(processes, tmp_path / "run", *STANDING, "--start-from", str(expected)).code == 0
    sweep = [
        "sweep",
        "tiny",
        "--sweep-dir",
        str(tmp_path / "sweep"),
        *OPTIONS,
        *STANDING,
        "--start-from",
        str(expected),
    ]
    finished = processes.start(command("train.__main__", *sweep, "--grid", "seed=0,1", "--at-once", "2")).wait()
    assert finished.code == 0, finished.err
    wanted = load_arrays(Run(expected).best)["params"]
    for folder in (tmp_path / "run", *(tmp_path / "sweep").glob("*seed=*")):
        assert read_config(Run(folder))["start_from"] == str(expected)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-25), load_arrays(Run(folder).best)["params"], wanted)


@pytest.mark.slow
def test_it_is_resumed_to_the_same_bits_with_the_moments_of_the_last_checkpoint(processes, expected, tmp_path):
    start = ("--start-from", str(expected), "--start-optimizer")
    assert train_tiny(processes, tmp_path / "whole", *start).code == 0
    moment = Moment("os.rename checkpoints/7.orbax-checkpoint-tmp")
    assert train_tiny(processes, tmp_path / "killed", *start, before=killed_at(tmp_path / "killed", moment)).code == -9
    assert "resumed    after epoch 1" in train_tiny(processes, tmp_path / "killed", *start, "--resume").out
    assert_same_run(tmp_path / "killed", tmp_path / "whole")

    # A run of two epochs has ten steps; Adam's count goes on from there, the schedule's begins anew.
    adam, _, schedule = load_arrays(Run(tmp_path / "whole").checkpoints / "10")["opt_state"]
    assert (adam["count"], schedule["count"]) == (20, 10)


def refusal(config):
    with pytest.raises(UserError) as error:
        check_learner(config, load_dataset("phantom", 16))
    return str(error.value)


@pytest.mark.slow
def test_another_network_other_classes_and_another_size_are_refused(tmp_path):
    config = save_start(tmp_path / "softmax", "simplecnn", gate="softmax")
    start = config.training.start_from
    assert "--start-from" in refusal(config.replace(gate="sigmoid"))
    assert f"{start}: its network has gate softmax, this one sigmoid; give" in refusal(config.replace(gate="sigmoid"))
    other = make_config("unet", encoder="random", start_from=start)
    assert f"{start}: its network has model SimpleCNN, this one UNetClassifier" in refusal(other)
    assert "--image-size 64: " in refusal(config.replace(image_size=64))
    assert "--normalization imagenet: params/conv1/kernel" in refusal(config.replace(normalization="imagenet"))
    assert f"{start}: its network has stem_features" in refusal(config.replace(width=0.1))
    named = save_start(tmp_path / "named", "simplecnn", classes=("no", "yes"))
    assert "it knows the classes no, yes, the data set has glioma_tumor" in refusal(named)
    (tmp_path / "softmax" / "best" / "manifest.json").unlink()
    assert "softmax/best: holds no weights" in refusal(config)


@pytest.mark.slow
def test_moments_of_other_weights_are_refused(expected, tmp_path):
    config = make_config("simplecnn", start_from=str(expected), start_optimizer=True)
    shapes = jax.eval_shape(optax.flatten(optax.scale_by_adam()).init, {"kernel": np.zeros((3, 4), np.float32)})
    with pytest.raises(UserError, match=r"--start-optimizer: .*checkpoints/10: can't be used .*leave it out"):
        start_moments(config.training, (shapes,))
    missing = make_config("simplecnn", start_from=str(tmp_path), start_optimizer=True)
    with pytest.raises(UserError, match=r"--start-optimizer: .*checkpoints: holds no checkpoint; leave it out"):
        start_moments(missing.training, (shapes,))
    with pytest.raises(ValueError, match="start_optimizer True: needs --start-from"):
        make_config("simplecnn", start_optimizer=True)


@pytest.mark.parametrize(
    "words",
    [
        "simplecnn --run-dir {0} --start-from {0}",
        "unet --run-dir {0} --encoder {0}/../weights",
        "sweep unet --sweep-dir {0} --grid encoder=random,{0}/1-seed=0",
    ],
)
def test_nothing_replaces_the_weights_that_it_starts_from(run_train, tmp_path, words):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").touch()
    code, _, shown = run_train(*words.format(folder).split(), "--overwrite")
    assert code == 2
    assert re.fullmatch(r"error: --(start-from|encoder) \S+: would be replaced by --overwrite; choose .*\n", shown)
    assert list(tmp_path.rglob("*")) == [folder, folder / "config.json"]
