"""The main job of the README on the smallest images that it takes: the SimpleCNN learns the phantom in as many epochs.

At full size it is trained, and held to the same score, by .ci/run.
"""

import sys

import pytest
from sklearn.metrics import f1_score

from jaxcnn.runs.folder import open_run, read_predictions
from train.__main__ import main


@pytest.mark.slow
@pytest.mark.optimized
def test_the_default_run_ends_with_a_test_f1_above_0_9(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "simplecnn", "--image-size", "50", "--run-dir", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 0
    predictions = read_predictions(open_run(tmp_path / "run"), "test")
    assert f1_score(predictions.labels, predictions.logits.argmax(axis=1), average="macro") > 0.9
