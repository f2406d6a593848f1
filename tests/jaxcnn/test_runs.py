"""The run folder: what is written is read back, and what is there is never lost by mistake."""

import stat

import numpy as np
import pytest

from jaxcnn.atomic import whole_file
from jaxcnn.cli import UserError
from jaxcnn.runs import (
    Predictions,
    create_run,
    open_run,
    read_config,
    read_data,
    read_epochs,
    read_predictions,
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
    assert (loaded.names, loaded.classes) == (predictions.names, predictions.classes)


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
