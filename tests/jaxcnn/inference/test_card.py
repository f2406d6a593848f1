"""The model card holds what the run holds, in words that the hub reads, and the command that makes such a run."""

import dataclasses
import json
import shlex
import shutil
import sys

import numpy as np
import pytest
from huggingface_hub import ModelCard
from random_network import random_network
from scored_runs import ENVIRONMENT, save_baseline, save_predictions
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.errors import UserError
from jaxcnn.inference.card import card_text, train_command
from jaxcnn.inference.trained import Trained, load_best, save_trained
from jaxcnn.runs.folder import SPLITS, Run, create_run, read_predictions, write_unlike
from train.__main__ import main
from train.options import make_config

MODEL = SimpleCNN(stem_features=(2, 3), squeeze_features=2, skip_features=2, head_features=3, hidden_features=4)
DATA = {
    "source": "/home/somebody/scans/hospital",
    "protocol": "official",
    "crossing": {"groups": 3, "train": 5, "test": 2, "copied": ["image-0", "image-7"], "patients": 0, "validation": 0},
    "left_out": 0,
    "images": {split: dict.fromkeys(CLASSES, 10) for split in SPLITS},
    "patients": {"train": 31, "validation": 4, "test": 9},
    "fingerprints": dict.fromkeys(SPLITS, "0123456789abcdef" * 4),
}


@pytest.fixture
def run(tmp_path):
    config = make_config("simplecnn", data="/home/somebody/data", start_from="../secret/first", epochs=65)
    run = create_run(tmp_path / "first", config.to_json(), DATA, ENVIRONMENT, overwrite=False)
    save_predictions(run, seed=1, names=[f"image-{place}" for place in range(40)])
    _, variables = random_network(MODEL, (1, 64, 64, 1))
    save_trained(run.best, Trained(MODEL, variables, Preprocessing(crop="head"), (64, 64, 1), CLASSES, epoch=7))
    return run


def call(monkeypatch, *words):
    """Run `python -m train` with these words and give its exit code."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
    with pytest.raises(SystemExit) as error:
        main()
    return error.value.code


def test_the_header_is_the_hubs_and_its_scores_are_those_of_the_test_images(run, monkeypatch, capsys):
    assert call(monkeypatch, "card", run.folder, "--license", "cc-by-nc-4.0") == 0
    assert capsys.readouterr().out == f"{run.card}\n"
    found = ModelCard.load(run.card)
    assert found.data.license == "cc-by-nc-4.0"
    assert found.data.pipeline_tag == "image-classification"
    test = read_predictions(run, "test")
    probabilities = np.exp(test.logits.astype(float)) / np.exp(test.logits.astype(float)).sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    expected = {
        "accuracy": accuracy_score(test.labels, predicted),
        "f1": f1_score(test.labels, predicted, average="macro"),
        "roc_auc": roc_auc_score(test.labels, probabilities, multi_class="ovr"),
    }
    scores = {result.metric_type: result.metric_value for result in found.data.eval_results}
    assert scores == pytest.approx(expected, abs=1e-4)
    assert {(of.dataset_name, of.dataset_split) for of in found.data.eval_results} == {("hospital", "test")}


def test_the_card_tells_data_audit_intervals_calibration_limits_and_origin_and_no_places(run, monkeypatch, capsys):
    assert call(monkeypatch, "card", run.folder) == 0
    text = run.card.read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["train", "evaluate", str(run.folder), "--json"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main()
    measures = json.loads(capsys.readouterr().out)["runs"][0]["measures"]
    for name, title in {"f1_macro": "macro F1", "log_loss": "log loss", "accuracy": "accuracy"}.items():
        assert f"| {title} | {{value:.3f}} [{{low:.3f}}, {{high:.3f}}] |".format(**measures[name]) in text
    assert "| the 38 without a copy in Training |" in text
    for words in (
        "Protocol `official`: the training images hold copies of test images",
        "2 of 40 test images have a near-duplicate, or an image of the same patient, in Training",
        "31 train, 4 validation, 9 test",
        "at temperature",
        "not a medical device",
        "The weights: apache-2.0.",
        "those after epoch 7",
        "0123456789abcdef+; jaxcnn 0.1.0, jax 0.10.2; on cpu",
        "--data data ",
        "--start-from first",
    ):
        assert words in text
    assert "home" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("simplecnn", {"epochs": 2, "image_size": 64, "tta": "flip", "ema": 0.9, "data": "data"}),
        ("unet", {"encoder": "random", "cache": False, "max_images": 8, "train_from": "head"}),
        ("resnet18", {"start_from": "a b", "start_optimizer": True, "tensorboard": True, "learning_rate": 3e-7}),
    ],
)
def test_the_command_on_the_card_makes_the_same_configuration(monkeypatch, model, options):
    config, seen = make_config(model, **options), []
    monkeypatch.setattr("train.__main__.run_model", lambda config, *_, **__: seen.append(config) or 0)
    words = shlex.split(train_command(config.to_json()).replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "train"]
    assert call(monkeypatch, *words[3:]) == 0
    assert seen[0].to_json() == config.to_json()


@pytest.mark.slow
def test_what_the_run_calls_unlike_is_on_the_card(run):
    assert "first doesn't know how unlike its training images an image is" in card_text([run])
    trained = load_best(run)
    unlike = {"mean": np.zeros(3, np.float32), "whitening": np.eye(3, dtype=np.float32)}
    save_trained(run.best, dataclasses.replace(trained, unlike=unlike))
    assert "5% of the\nvalidation images" in card_text([run])
    write_unlike(run, {"test": np.linspace(0, 1.25, 40, dtype=np.float32), "noise": np.full(7, 9, np.float32)})
    text = card_text([run])
    assert "| test | 40 | 20.0% |" in text
    assert "| noise | 7 | 100.0% |" in text


@pytest.mark.slow
def test_several_runs_have_the_scores_of_their_ensemble(run, tmp_path, monkeypatch, capsys):
    other = Run(shutil.copytree(run.folder, tmp_path / "second"))
    save_predictions(other, seed=2, names=[f"image-{place}" for place in range(40)])
    monkeypatch.setattr(sys, "argv", ["train", "evaluate", str(run.folder), str(other.folder), "--ensemble", "--json"])
    with pytest.raises(SystemExit):
        main()
    measures = json.loads(capsys.readouterr().out)["runs"][-1]["measures"]
    text = card_text([run, other])
    assert "# first, second\n" in text
    assert "| macro F1 | {value:.3f} [{low:.3f}, {high:.3f}] |".format(**measures["f1_macro"]) in text
    assert text.count("python -m train simplecnn --data data") == 2
    other.data.write_text(run.data.read_text("utf-8").replace("0123456789abcdef", "f" * 16))
    with pytest.raises(UserError, match="second: was trained on other images than"):
        card_text([run, other])


def test_what_has_no_card_is_told_in_one_line_and_a_card_is_not_replaced(run, tmp_path, monkeypatch, capsys):
    def told(*words):
        assert call(monkeypatch, "card", *words) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        return shown

    save_baseline(tmp_path / "hog")
    assert "hog: has no network" in told(tmp_path / "hog")
    assert "no run folder" in told(tmp_path / "nothing")
    run.card.write_text("What its owner wrote.")
    assert "README.md: exists; replace it with --overwrite" in told(run.folder)
    assert run.card.read_text("utf-8") == "What its owner wrote."
    assert call(monkeypatch, "card", run.folder, "--overwrite") == 0
    run.predictions("test").unlink()
    capsys.readouterr()
    assert "test.npz: no such file; finish the run first" in told(run.folder, "--overwrite")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "need huggingface_hub, which is not installed" in told(run.folder, "--overwrite")
