"""python -m train simplecnn, as a user types it, on a network narrow enough for a test."""

import dataclasses
import itertools
import json
import math
import os
import signal
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from docstring_parser import parse_from_object
from planted import smooth_images

import train.folder
import train.images
import train.learner
import train.run
from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.errors import UserError
from jaxcnn.models.table import MODELS
from jaxcnn.runs.folder import open_run, read_config, read_data, read_epochs, read_predictions
from train.__main__ import main
from train.folder import check_same_options
from train.machine.devices import Placement
from train.machine.interruption import Interruption
from train.options import TrainOptions, make_config

# 48 images of each split, 44 of them left to train on: 5 steps of 8 an epoch.
OPTIONS = ["--width", "0.05", "--max-images", "48", "--epochs", "2", "--batch-size", "8", "--dropout", "0.3"]
STEPS = 5


def run_train(monkeypatch, folder: Path, *more: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train", "simplecnn", "--run-dir", str(folder), *OPTIONS, *more])
    with pytest.raises(SystemExit) as error:
        main()
    return error.value.code


def result(folder: Path):
    """All of a run that must be the same bits when it is run again."""
    run = open_run(folder)
    epochs = [
        {k: v for k, v in e.items() if k not in ("seconds", "images_per_second", "overall_images_per_second")}
        for e in read_epochs(run)
    ]
    return epochs, {split: read_predictions(run, split) for split in ("train", "validation", "test")}


def assert_same_bits(folder: Path, other: Path):
    (epochs, predictions), (other_epochs, other_predictions) = result(folder), result(other)
    assert epochs == other_epochs
    for split, found in predictions.items():
        np.testing.assert_array_equal(found.logits, other_predictions[split].logits)
        assert found.names == other_predictions[split].names


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run_train(monkeypatch, folder) == 0
    return folder


@pytest.mark.slow
def test_a_run_leaves_all_that_was_promised(finished):
    run = open_run(finished)
    scores = [
        f"{s}_{m}" for s in ("train", "validation", "test") for m in ("loss", "accuracy", "f1_macro", "f1_weighted")
    ]
    for number, line in enumerate(read_epochs(run), start=1):
        assert set(line) == {
            "epoch",
            "step",
            "learning_rate",
            "seconds",
            "images_per_second",
            "overall_images_per_second",
            *scores,
        }
        assert (line["epoch"], line["step"]) == (number, number * STEPS)
    assert len(read_epochs(run)) == 2
    assert read_config(run)["width"] == 0.05
    assert json.loads(run.environment.read_text("utf-8"))["packages"]["jax"]
    assert {split: len(read_predictions(run, split).labels) for split in ("train", "validation", "test")} == {
        "train": 44,
        "validation": 4,
        "test": 48,
    }


@pytest.mark.slow
def test_the_predictions_are_those_of_the_best_epoch(finished):
    run = open_run(finished)
    best = max(read_epochs(run), key=lambda e: (e["validation_f1_macro"], -e["validation_loss"], e["step"]))
    predictions = read_predictions(run, "test")
    accuracy = np.mean(predictions.logits.argmax(axis=1) == predictions.labels)
    assert accuracy == pytest.approx(best["test_accuracy"])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(finished, tmp_path, monkeypatch):
    assert run_train(monkeypatch, tmp_path / "same") == 0
    assert_same_bits(tmp_path / "same", finished)
    assert run_train(monkeypatch, tmp_path / "other", "--seed", "1") == 0
    assert result(tmp_path / "other")[0] != result(finished)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_number", "at_batch", "resumed"),
    [
        (signal.SIGINT, 3, "in epoch 1, after step 3 of 5"),
        (signal.SIGTERM, STEPS, "after epoch 1"),
        (signal.SIGTERM, STEPS + 2, "after epoch 1"),  # while the first epoch is evaluated
    ],
)
def test_a_run_that_a_signal_stops_goes_on_to_the_same_bits(
    finished, tmp_path, monkeypatch, capsys, signal_number, at_batch, resumed
):
    batches, poll = itertools.count(1), Interruption.poll

    def signal_and_poll(interrupted):
        if next(batches) == at_batch:
            os.kill(os.getpid(), signal_number)
        return poll(interrupted)

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "poll", signal_and_poll)
        assert run_train(monkeypatch, tmp_path / "run", "--resume") == 128 + signal_number
    shown = capsys.readouterr().err
    stopped = f"stopped by {signal.Signals(signal_number).name}; the run is saved; continue it with the same command"
    assert f"{stopped} and --resume" in shown

    assert run_train(monkeypatch, tmp_path / "run", "--resume") == 0
    shown = capsys.readouterr().out.splitlines()
    assert f"resumed    {resumed}" in shown
    assert [line.split()[0] for line in shown[-4:]] == ["images", "train", "validation", "test"]
    assert_same_bits(tmp_path / "run", finished)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path, monkeypatch, capsys):
    def explodes_in_the_second_epoch(*_):
        return lambda step: jnp.where(step < STEPS + 1, 1e-3, jnp.inf)

    with monkeypatch.context() as patch:
        patch.setattr(train.learner, "learning_rate_schedule", explodes_in_the_second_epoch)
        assert run_train(monkeypatch, tmp_path / "run") == 1
    message = capsys.readouterr().err
    assert f"at step {STEPS + 3}; start again with a lower --learning-rate and --overwrite" in message
    assert message.count("\n") == 1
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == [str(STEPS)]
    # From there the run can go on, here with the learning rate it was configured with.
    assert run_train(monkeypatch, tmp_path / "run", "--resume") == 0
    assert all(math.isfinite(epoch["train_loss"]) for epoch in read_epochs(open_run(tmp_path / "run")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "/no/such/folder"], "/no/such/folder"),
        pytest.param(
            ["--batch-size", "45"],
            "--batch-size 45: is larger than the 44 training images",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--max-images", "3"],
            "--validation-fraction 0.1: the 1 training images of glioma_tumor leave 0 to train on",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--warmup-steps", "10"],
            "--warmup-steps 10: the run has 10 steps, so the learning rate would never reach its peak; give fewer",
            marks=pytest.mark.slow,
        ),
        # `--crop` alone names the only crop there was; `--epochs` is no name of one.
        (["--crop", "--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--crop", "heads"], "--crop heads: must be one of none, head"),
        (["--accumulate", "3"], "--accumulate 3: must divide the batch size, 8"),
        (["--learning-rate", "-1"], "--learning-rate -1.0: must be above 0"),
        (["--width", "1e300"], "--width 1e+300: must be above 0 and at most 64"),
        (["--image-size", "1000000"], "--image-size 1000000: must be 1 to 16384"),
        (["--dropout", "1"], "--dropout 1.0: must be at least 0 and below 1"),
        (["--overwrite", "--resume"], "--overwrite and --resume"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys, options, message):
    assert run_train(monkeypatch, tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_name_can_not_be_gone_on_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "simplecnn", *OPTIONS, "--resume"])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    assert capsys.readouterr().err == "error: --resume needs --run-dir: name the folder of the run to resume\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_with_its_own_options_but_may_save_as_often_as_it_likes_and_find_its_images_elsewhere():
    before = make_config("unet", encoder="weights", data="data", checkpoint_every=10).to_json()
    same = make_config("unet", encoder="weights", data="/mnt/data", checkpoint_every=99).to_json()
    check_same_options(same, before, "the run")
    with pytest.raises(UserError, match="--views 4: the run has 8; resume with the options"):
        check_same_options(same | {"views": 4}, before, "the run")
    with pytest.raises(UserError, match=r"^simplecnn: the run is a run of unet; resume that"):
        check_same_options(make_config("simplecnn").to_json(), before, "the run")
    with pytest.raises(UserError, match=r"^unet: the run is a run of hog; resume that"):
        check_same_options(same, {"baseline": "hog", "data": "phantom"}, "the run")
    # A run that is older than an option had what the option is when it isn't given.
    old = {field: value for field, value in before.items() if field != "views"}
    check_same_options(same, old, "the run")
    with pytest.raises(UserError, match="--views 4: the run has 8"):
        check_same_options(same | {"views": 4}, old, "the run")


@pytest.mark.slow
def test_a_finished_run_is_safe_from_other_options_and_from_being_started_again(finished, monkeypatch, capsys):
    before = result(finished)[0]
    assert run_train(monkeypatch, finished) == 2
    assert "holds a run" in capsys.readouterr().err
    assert run_train(monkeypatch, finished, "--resume", "--learning-rate", "0.5") == 2
    assert "--learning-rate 0.5: the run in" in capsys.readouterr().err
    assert run_train(monkeypatch, finished, "--resume") == 0
    assert result(finished)[0] == before


def planted(copies: int) -> Dataset:
    """40 training and 16 test images, of which the first few are copies of the first training images."""
    images = smooth_images(56)
    images[40 : 40 + copies] = images[:copies]
    labels = np.arange(56, dtype=np.int32) % 4
    whole = Split(images, labels, tuple(map(str, range(56))))
    return Dataset("planted", CLASSES, {"train": whole.take(np.arange(40)), "test": whole.take(np.arange(40, 56))})


@pytest.mark.parametrize("option", ["test_fraction", "validation_fraction"])
def test_the_fraction_that_leaves_nothing_is_named(option):
    dataset = planted(0)
    dataset = dataclasses.replace(dataset, splits={"train": dataset.splits["train"]})
    message = rf"--{option.replace('_', '-')} 0.99: the 10 training images of \w+ leave 0 to train on"
    with pytest.raises(UserError, match=message):
        train.images.divide_images(dataset, TrainOptions(**{option: 0.99}))


@pytest.fixture
def start(monkeypatch, capsys, tmp_path):
    """Start a run on a planted set, without training it; gives the exit code, what was printed and data.json."""
    monkeypatch.setattr(train.run, "compile_learner", lambda *_, **__: None)
    monkeypatch.setattr(train.run, "train", lambda *_: {0: {}})

    def run(copies: int, *options: str):
        source = options[options.index("--data") + 1] if "--data" in options else "planted"
        dataset = dataclasses.replace(planted(copies), source=source)
        monkeypatch.setattr(train.images, "load_dataset", lambda *_, **__: dataset)
        code = run_train(monkeypatch, tmp_path / "run", *options)
        captured = capsys.readouterr()
        return code, captured.out + captured.err, read_data(open_run(tmp_path / "run"))

    return run


def test_a_leaky_set_is_trained_on_without_the_copies_and_says_so_in_one_line(start):
    code, printed, data = start(6)
    assert code == 0
    found = "6 of 16 test images have near-duplicates among 6 training images"
    assert [line for line in printed.splitlines() if line.startswith("copies")] == [
        f"copies     {found}, which are left out"
    ]
    assert (data["protocol"], data["left_out"]) == ("leak-free", 6)
    assert sum(data["images"]["train"].values()) + sum(data["images"]["validation"].values()) == 34

    code, printed, data = start(6, "--protocol", "official", "--overwrite")
    assert code == 0
    line = f"copies     {found}; their scores measure memorisation (leave the copies out with --protocol leak-free)"
    assert line in printed.splitlines()
    assert (data["protocol"], data["left_out"]) == ("official", 0)
    assert sum(data["images"]["train"].values()) + sum(data["images"]["validation"].values()) == 40


def test_a_set_without_copies_says_nothing_of_them(start):
    code, printed, data = start(0)
    assert code == 0
    assert data["crossing"] == {"groups": 0, "train": 0, "test": 0, "copied": [], "patients": 0, "validation": 0}
    assert not any(line.startswith("copies") for line in printed.splitlines())


def test_a_run_goes_on_with_the_images_it_was_started_with_or_not_at_all(start):
    _, _, before = start(0)
    assert start(0, "--resume")[0] == 0
    # The same number of images, but a test image is another one: only the fingerprint tells.
    code, printed, after = start(1, "--resume", "--protocol", "leak-free")
    assert (code, after) == (2, before)
    split = next(name for name in ("train", "validation", "test") if f"the {name} images" in printed)
    assert f"have {before['fingerprints'][split][:12]}; resume with the images it was started with" in printed
    code, printed, _ = start(0, "--resume", "--protocol", "official")
    assert code == 2
    assert "--protocol official: the run in" in printed


def test_a_run_that_is_resumed_says_where_its_images_lie_now(start, tmp_path):
    _, _, before = start(0)
    config = read_config(open_run(tmp_path / "run"))
    code, _, after = start(0, "--resume", "--data", "/mnt/planted", "--checkpoint-every", "9")
    assert (code, after) == (0, before | {"source": "/mnt/planted"})
    moved = config | {"data": "/mnt/planted", "checkpoint_every": 9}
    assert read_config(open_run(tmp_path / "run")) == moved
    # Other images at another address are refused, and nothing is written.
    assert start(1, "--resume", "--data", "/mnt/other")[::2] == (2, after)
    assert read_config(open_run(tmp_path / "run")) == moved


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train.folder.time, "strftime", lambda _: "simplecnn-20260101-000000")
    names = [str(train.folder.new_folder("simplecnn")) for _ in range(3)]
    assert names == [f"runs/simplecnn-20260101-000000{number}" for number in ("", "-2", "-3")]


@pytest.mark.parametrize("options", [TrainOptions, Placement, *(of.options for of in MODELS.values())])
def test_the_help_of_an_option_is_one_line_of_the_source(options):
    """The command line keeps the line breaks in the docstrings of fields."""
    helps = [of.description or "" for base in options.__mro__[:-1] for of in parse_from_object(base).params]
    assert helps
    assert not [of for of in helps if "\n" in of]
