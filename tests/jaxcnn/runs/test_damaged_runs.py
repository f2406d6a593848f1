"""Whatever lies in a run folder, each command that reads it ends well or with one line that names the file."""

import shutil
import sys

import numpy as np
import pytest
from random_run import random_trained, save_random_run
from scored_runs import save_predictions

from figures.__main__ import main as figures
from jaxcnn import SimpleCNN
from jaxcnn.runs.folder import Run
from train.__main__ import main as train

# What each command reads of a run, beside the fact that there is a config.json.
READ = {
    ("train", "evaluate", "RUN", "--resamples", "1"): ["data.json", "predictions/test.npz"],
    ("train", "evaluate", "RUN", "--resamples", "1", "--temperature"): ["predictions/validation.npz"],
    ("train", "predict", "RUN", "IMAGE"): ["best/manifest.json", "best/checksums.json"],
    ("train", "export", "RUN", "OUT"): ["best/manifest.json", "data.json", "environment.json", "metrics.jsonl"],
    ("figures", "models", "RUN", "--out", "OUT.png"): ["config.json", "metrics.jsonl"],
    ("figures", "learning-curves", "RUN", "--out", "OUT.png"): ["metrics.jsonl"],
    ("figures", "confusion-matrices", "RUN", "--out", "OUT.png"): ["data.json", "predictions/train.npz"],
    ("figures", "reliability", "RUN", "--out", "OUT.png"): ["data.json", "predictions/validation.npz"],
    ("figures", "roc-curves", "RUN", "--out", "OUT.png"): ["data.json", "predictions/test.npz"],
    ("figures", "report", "RUN", "--out", "OUT.html"): [
        "config.json",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "predictions/test.npz",
    ],
}

CONTENTS = [
    b"",
    b"\xff\xfe\x00",
    b"[]",
    b"NaN",
    b"1" + b"0" * 300,
    b"[" * 100_000,
    b"PK\x03\x04 no zip",
    b"\0" * 4096,
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that no command has anything to say against."""
    model = SimpleCNN(stem_features=(2, 2), squeeze_features=2, skip_features=2, head_features=2, hidden_features=2)
    folder = save_random_run(tmp_path_factory.mktemp("runs") / "whole", random_trained(model, 50))
    save_predictions(Run(folder), seed=0)
    return folder


@pytest.fixture
def refused(whole, tmp_path, monkeypatch, capsys):
    """Run a command on a copy of the run with another file in a file's place; gives its line on stderr."""

    def run(command, name, content):
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / name).unlink()
        (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
        words = {"RUN": folder, "IMAGE": tmp_path / "no.png", "OUT": tmp_path / "out", "OUT.png": tmp_path / "out.png"}
        words["OUT.html"] = tmp_path / "out.html"
        monkeypatch.setattr(sys, "argv", [str(words.get(word, word)) for word in command])
        with pytest.raises(SystemExit) as error:
            {"train": train, "figures": figures}[command[0]]()
        shown = capsys.readouterr()
        assert error.value.code == 2, shown.err
        assert shown.err.count("\n") == 1
        assert str(folder) in shown.err
        assert shown.err.startswith("error: ")
        assert "; " in shown.err
        assert not list(tmp_path.glob("out*"))
        return shown.err

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"),
    [
        pytest.param(command, name, id=f"{' '.join(command[1:3])} {name}")
        for command, names in READ.items()
        for name in names
    ],
)
def test_a_damaged_file_is_named_in_one_line(refused, whole, command, name):
    content = (whole / name).read_bytes()
    for other in (*CONTENTS, content[: len(content) // 2], content[: -len(content) // 9], None):
        if (name, other) == ("metrics.jsonl", b""):
            continue  # No epoch has ended yet.
        message = refused(command, name, other)
        assert name.split("/")[-1] in message or "no run folder in it" in message, other


def test_a_run_of_other_classes_than_its_predictions_is_told(refused, whole):
    with np.load(whole / "predictions" / "test.npz") as arrays:
        fewer = {**arrays, "classes": arrays["classes"][:3]}
    np.savez(whole.with_name("fewer.npz"), **fewer)
    content = whole.with_name("fewer.npz").read_bytes()
    message = refused(("train", "evaluate", "RUN"), "predictions/test.npz", content)
    assert "test.npz: is damaged (logits are float32(40, 4), expected float32(40, 3))" in message
