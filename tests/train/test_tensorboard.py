"""What TensorBoard reads is what metrics.jsonl holds, each epoch once, however often the run was stopped."""

import io
import sys

import numpy as np
import pytest
from kills import OPTIONS, Moment, killed_at
from kills import train as train_tiny
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxcnn.runs.folder import Run, read_epochs
from train.__main__ import main
from train.tensorboard import write_events


def read_back(run):
    """What TensorBoard finds: the steps and values of each tag, and its pictures."""
    events = EventAccumulator(str(run.events)).Reload()
    scalars = {tag: [(of.step, of.value) for of in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars, {tag: events.Images(tag) for tag in events.Tags()["images"]}


@pytest.mark.slow
def test_a_run_that_was_killed_has_every_epoch_once(processes, tmp_path):
    run = Run(tmp_path / "run")
    # After the first epoch's events, and before its line.
    for moment in (Moment("os.rename .metrics-*.jsonl"), Moment("os.rename .metrics-*.jsonl")):
        stopped = train_tiny(processes, run.folder, "--tensorboard", "--resume", before=killed_at(run.folder, moment))
        assert stopped.code == -9, stopped
    assert train_tiny(processes, run.folder, "--tensorboard", "--resume").code == 0
    scalars, pictures = read_back(run)
    epochs = read_epochs(run)
    assert len(epochs) == 2
    for tag, column in {
        "loss/train": "train_loss",
        "f1_macro/test": "test_f1_macro",
        "training/seconds": "seconds",
    }.items():
        np.testing.assert_allclose(scalars[tag], [(line["epoch"], line[column]) for line in epochs], rtol=1e-6)
    assert len(scalars) == len(epochs[0]) - 2
    assert [picture.step for picture in pictures["confusion/validation"]] == [1, 2]
    with Image.open(io.BytesIO(pictures["confusion/validation"][0].encoded_image_string)) as image:
        assert min(image.size) > 200


def test_epochs_before_the_option_was_given_are_written_too_and_nan_stays_nan(tmp_path):
    run = Run(tmp_path)
    lines = [{"epoch": n, "step": 5 * n, "train_loss": value} for n, value in ((1, 0.5), (2, float("nan")))]
    write_events(run, lines, np.array([[3, 1], [0, 2]]), ("no", "yes"))
    write_events(run, lines, np.array([[3, 1], [0, 2]]), ("no", "yes"))
    scalars, pictures = read_back(run)
    np.testing.assert_array_equal(scalars["loss/train"], [(1, 0.5), (2, float("nan"))])
    assert [picture.step for picture in pictures["confusion/validation"]] == [2]


@pytest.mark.slow
def test_without_the_writer_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr(
        sys, "argv", ["train", "simplecnn", "--tensorboard", *OPTIONS, "--run-dir", str(tmp_path / "run")]
    )
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    shown = capsys.readouterr().err
    assert "--tensorboard: needs tensorboardX" in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "run").exists()
