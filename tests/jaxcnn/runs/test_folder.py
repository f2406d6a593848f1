"""The run folder: what is written is read back, and what is there is never lost by mistake."""

import stat
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.files import whole_file
from jaxcnn.runs.folder import (
    Run,
    best_epoch,
    create_run,
    open_run,
    read_config,
    read_data,
    read_epochs,
    read_predictions,
    remove_leftovers,
    write_epochs,
    write_predictions,
)


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", {"epochs": 3}, {"protocol": "official"}, {"python": "3"}, overwrite=False)


def test_config_data_epochs_and_predictions_round_trip(run):
    epochs = [{"epoch": 1, "test_loss": 0.1 + 0.2}, {"epoch": 2, "test_loss": 1e-9}]
    predictions = Predictions(
        np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        np.array([0, 1, 3], np.int32),
        np.array([0, 1, 0]),
        ("glioma_tumor/a (1).jpg", "ü.jpg", "c"),
        ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"),
    )
    write_epochs(run, epochs)
    write_predictions(run, "test", predictions)

    again = open_run(run.folder)
    assert read_config(again) == {"epochs": 3}
    assert read_data(again) == {"protocol": "official"}
    assert read_epochs(again) == epochs
    loaded = read_predictions(again, "test")
    np.testing.assert_array_equal(loaded.logits, predictions.logits)
    np.testing.assert_array_equal(loaded.labels, predictions.labels)
    np.testing.assert_array_equal(loaded.groups, predictions.groups)
    assert (loaded.names, loaded.classes) == (predictions.names, predictions.classes)


def test_the_best_epoch_has_the_highest_validation_f1_then_the_lowest_loss_then_it_is_the_last():
    scores = [(0.5, 0.1), (0.7, 0.9), (0.7, 0.4), (0.7, 0.4), (0.6, 0.2)]
    lines = [{"epoch": i, "validation_f1_macro": f1, "validation_loss": loss} for i, (f1, loss) in enumerate(scores)]
    assert [best_epoch(lines[:count])["epoch"] for count in range(1, 6)] == [0, 1, 2, 3, 3]


def test_a_new_run_has_no_epochs_and_no_predictions(run):
    assert read_epochs(run) == []
    with pytest.raises(UserError, match="no such file"):
        read_predictions(run, "test")


def test_an_existing_run_is_replaced_only_when_asked(run):
    write_epochs(run, [{"epoch": 1}])
    with pytest.raises(UserError, match=r"holds a run.*--resume.*--overwrite"):
        create_run(run.folder, {}, {}, {}, overwrite=False)
    assert read_epochs(run) == [{"epoch": 1}]
    create_run(run.folder, {}, {}, {}, overwrite=True)
    assert read_epochs(run) == []


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is no run folder"):
        create_run(tmp_path, {}, {}, {}, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    with pytest.raises(UserError, match="no run folder"):
        open_run(tmp_path)


@pytest.mark.parametrize("locked", [False, True])
def test_a_folder_of_another_program_that_has_a_config_json_is_never_replaced(tmp_path, locked):
    for name in ("config.json", "model.safetensors", *([".lock"] if locked else [])):
        (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match="is no run folder"):
        create_run(tmp_path, {}, {}, {}, overwrite=True)
    assert (tmp_path / "config.json").read_text() == (tmp_path / "model.safetensors").read_text() == "precious"


def test_a_run_has_the_name_of_its_folder_wherever_it_is_named_from(run, monkeypatch):
    monkeypatch.chdir(run.folder)
    assert Run(Path(".")).name == Run(Path("../run")).name == "run"


def test_a_run_folder_inside_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="run-dir"):
        create_run(tmp_path / "file" / "run", {}, {}, {}, overwrite=False)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "scores.csv"

    def interrupted_write():
        with whole_file(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_write()
    assert list(target.parent.iterdir()) == []
    with whole_file(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["scores.csv"]
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_is_left_of_a_run_that_was_killed_while_it_was_made_is_replaced(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "environment.json", ".data-a1b2c3d4.json"):
        (folder / name).write_text("half")
    run = create_run(folder, {"epochs": 3}, {}, {}, overwrite=False)
    assert {path.name for path in folder.iterdir()} == {".lock", "config.json", "data.json", "environment.json"}
    assert read_config(run) == {"epochs": 3}


def test_files_of_others_are_never_taken_for_what_is_left_of_a_run(tmp_path):
    for name in (".lock", "data.json", "thesis.tex"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="is no run folder"):
        create_run(tmp_path, {}, {}, {}, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "data.json", "thesis.tex"}


def test_leftovers_of_a_killed_process_are_removed_and_the_best_classifier_put_back(run):
    """Killed between the two renames that replace the classifier, and while it wrote two files."""
    for path in (".best-a1b2c3d4/written", ".best-a1b2c3d4/replaced", "predictions", "figures"):
        (run.folder / path).mkdir(parents=True)
    (run.folder / ".best-a1b2c3d4/replaced/manifest.json").write_text("old")
    for path in (".metrics-a1b2c3d4.jsonl", "predictions/.test-a1b2c3d4.npz", "figures/.curves-a1b2c3d4.png"):
        (run.folder / path).touch()
    remove_leftovers(run)
    assert (run.best / "manifest.json").read_text() == "old"
    left = {str(path.relative_to(run.folder)) for path in run.folder.rglob(".*")}
    # Another process may draw figures meanwhile.
    assert left == {".lock", "figures/.curves-a1b2c3d4.png"}
