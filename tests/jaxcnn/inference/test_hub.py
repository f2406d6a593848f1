"""What is shared on the hub comes back as the same classifier; the hub is a stand-in on this machine."""

import sys

import numpy as np
import pytest
from hub_server import stand_in_hub
from planted import smooth_images
from random_run import random_trained, save_random_run
from scored_runs import save_predictions

import jaxcnn
from jaxcnn import SimpleCNN
from jaxcnn.errors import UserError
from jaxcnn.inference.unlike import fit_unlike
from jaxcnn.runs.folder import Run
from train.__main__ import main

# Of huggingface_hub, about itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
MODEL = SimpleCNN(stem_features=(2, 3), squeeze_features=2, skip_features=2, head_features=3, hidden_features=4)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)


@pytest.fixture
def hub(tmp_path):
    with stand_in_hub(tmp_path / "cache") as hub:
        yield hub


@pytest.fixture(scope="module")
def trained():
    trained = random_trained(MODEL, 64, tta="flip", normalization="percentile")
    return fit_unlike(trained, smooth_images(64, size=64), smooth_images(32, 1, 64))


@pytest.fixture
def run(tmp_path, trained):
    run = Run(save_random_run(tmp_path / "first", trained))
    save_predictions(run, seed=1)
    return run


def push(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["train", "push", *map(str, words)])
    with pytest.raises(SystemExit) as error:
        main()
    return error.value.code


@pytest.mark.slow
def test_a_classifier_comes_back_from_the_hub_with_the_same_probabilities(hub, run, monkeypatch, capsys):
    assert push(monkeypatch, run.folder, "someone/brains") == 0
    assert capsys.readouterr().out.endswith(f"{hub.url}/someone/brains\n")
    (files,) = hub.repositories["someone/brains"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert files["README.md"].decode() == run.card.read_text("utf-8").replace("hf://OWNER/NAME", "hf://someone/brains")
    assert b"someone/brains" in files["README.md"]
    assert list(hub.large.values()) == [files["model.safetensors"]]  # As the real one asks for it.
    here, there = jaxcnn.load(run.folder), jaxcnn.load("hf://someone/brains")
    assert there.classes == here.classes
    np.testing.assert_array_equal(there(IMAGES), here(IMAGES))
    np.testing.assert_array_equal(there.unlike(IMAGES), here.unlike(IMAGES))

    run.card.write_text("What its owner wrote.")
    assert push(monkeypatch, run.folder, "someone/brains") == 0
    assert hub.repositories["someone/brains"][-1]["README.md"] == b"What its owner wrote."
    # What was got once is there without the hub, by its revision.
    hub.repositories.clear()
    np.testing.assert_array_equal(jaxcnn.load(f"hf://someone/brains@{1:040x}")(IMAGES), here(IMAGES))


def refused(address):
    with pytest.raises(UserError) as error:
        jaxcnn.load(address)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.slow
def test_what_is_missing_or_damaged_on_the_hub_is_told_in_one_line(hub, run, monkeypatch, capsys):
    assert "hf://someone/nothing: 404" in refused("hf://someone/nothing")
    assert "hf://: Repo id must" in refused("hf://")
    assert push(monkeypatch, run.folder, "someone/brains") == 0
    (files,) = hub.repositories["someone/brains"]
    for place, (name, content, message) in enumerate(
        [
            ("config.json", b"{}", "config.json: is damaged"),
            ("config.json", b"\xff", "config.json: is damaged"),
            ("model.safetensors", b"no arrays", "model.safetensors: can't be read"),
            ("model.safetensors", files["model.safetensors"].replace(b"kernel", b"kermel"), "holds other arrays than"),
        ]
    ):
        hub.repositories[f"someone/{place}"] = [files | {name: content}]
        assert message in refused(f"hf://someone/{place}")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    assert "pip install" in refused("hf://someone/brains")
    capsys.readouterr()


@pytest.mark.slow
def test_without_a_login_nothing_is_sent(hub, run, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert push(monkeypatch, run.folder, "someone/brains") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: someone/brains: ")
    assert "hf auth login" in shown
    assert shown.count("\n") == 1
    assert hub.repositories == {}
    assert hub.large == {}
