"""A sweep trains each model as alone, survives kills and a model that diverges, and ranks by the validation images."""

import csv
import itertools
import json
import re
import sys
import time
from functools import partial

import numpy as np
import pytest
from kills import OPTIONS, Moment, assert_same_run, held_at, killed_at
from processes import command
from scipy import stats

import train.sweep.groups
from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, open_run, open_sweep, read_config
from jaxcnn.runs.lock import InUseError, lock_file, lock_run
from train.__main__ import main
from train.machine.interruption import InterruptedRunError
from train.options import make_config
from train.sweep.grid import make_models, parse_grid
from train.sweep.table import (
    Row,
    average_over_folds,
    average_over_seeds,
    format_settings,
    sort_rows,
    write_models,
    write_settings,
)


def run_sweep(monkeypatch, folder, *more: str) -> int:
    monkeypatch.setattr(
        sys, "argv", ["train", "sweep", "simplecnn", "--sweep-dir", str(folder), "--width", "0.05", *OPTIONS, *more]
    )
    with pytest.raises(SystemExit) as error:
        main()
    return error.value.code


def test_the_grid_is_every_combination_and_its_names_sort_in_its_order():
    config = make_config("simplecnn", seed=5)
    grid = parse_grid(config, ["learning-rate=1e-3,1e-5", "crop=head,none", "gate=softmax", "batch_size=8,16,4"])
    assert grid == {
        "learning_rate": (1e-3, 1e-5),
        "crop": ("head", "none"),
        "gate": ("softmax",),
        "batch_size": (8, 16, 4),
    }
    models = make_models(config, grid, None)
    found = [(m.config.training.learning_rate, m.config.training.crop, m.config.training.batch_size) for m in models]
    assert found == list(itertools.product((1e-3, 1e-5), ("head", "none"), (8, 16, 4)))
    assert all(model.config.network.gate == "softmax" and model.config.training.seed == 5 for model in models)
    assert models[0].name == "01-learning_rate=0.001,crop=head,gate=softmax,batch_size=8"
    assert [m.name for m in models] == sorted(m.name for m in models)


def test_the_values_of_a_grid_need_to_fit_one_another_only():
    """Not the options beside the grid, which they replace: 3 doesn't divide the batch size of 16."""
    config = make_config("simplecnn", batch_size=16)
    models = make_models(config, parse_grid(config, ["batch_size=12,24", "accumulate=3,4"]), None)
    assert len(models) == 4


def test_a_path_among_the_values_makes_no_folder_of_its_own():
    grid = parse_grid(make_config("unet"), [f"encoder=random,../weights/{'a' * 300}"])
    names = [model.name for model in make_models(make_config("unet"), grid, None)]
    assert names[0] == "1-encoder=random"
    assert names[1].startswith("2-encoder=..-weights-aaa")
    assert len(names[1]) < 200


def test_random_draws_without_repetition_by_the_seed():
    def drawn(seed: int, count: int) -> list[tuple]:
        config = make_config("simplecnn", seed=seed)
        grid = parse_grid(config, ["dropout=0.1,0.2,0.3,0.4", "batch_size=1,2,3,4,5"])
        return [tuple(model.values.values()) for model in make_models(config, grid, count)]

    assert len(set(drawn(0, 19))) == 19
    assert drawn(0, 6) == drawn(0, 6) != drawn(1, 6)
    assert drawn(0, 20) == drawn(1, 20)
    with pytest.raises(UserError, match=r"--random 21: must be between 1 and 20, the number of combinations"):
        drawn(0, 21)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--grid is missing: name the options that differ"),
        (["--grid", "height=3"], "--grid height=3: there is no option 'height'; sweep one of epochs, batch_size, "),
        (["--grid", "data=a,b"], "--grid data=a,b: data can't be swept, since models are compared on the same images"),
        (["--grid", "seed=1", "--grid", "seed=2"], "--grid seed=2: seed is given twice"),
        (["--grid", "seed"], "--grid seed: a value is missing"),
        (["--grid", "seed=1,,2"], "--grid seed=1,,2: a value is missing"),
        (["--grid", "dropout=0.1,0.10"], "--grid dropout=0.1,0.10: lists a value twice"),
        (["--grid", "seed=0,x"], "--grid seed=x: --seed x: must be a whole number"),
        (["--grid", "gate=sigmoid,tanh"], "--grid gate=tanh: "),
        (["--grid", "dropout=0,1"], "--grid dropout=1: --dropout 1.0: must be at least 0 and below 1"),
        (["--folds", "3", "--fold", "1"], "--fold 1: a sweep goes through all folds; leave it out"),
        (["--folds", "3", "--grid", "fold=1,2"], "--grid fold=1,2: fold can't be swept, since a sweep with --folds"),
        (["--folds", "1", "--grid", "seed=0,1"], "--folds 1: must be at least 2"),
        (["--grid", "seed=0,1", "--random", "3"], "--random 3: must be between 1 and 2, the number of combinations"),
        (["--grid", "seed=0,1", "--random", "0"], "--random 0: must be between 1 and 2, the number of combinations"),
        (
            ["--grid", "seed=0,1", "--at-once", "2", "--accumulate", "3"],
            "--accumulate 3: must divide the batch size, 8",
        ),
        (["--grid", "batch_size=8,9", "--accumulate", "2"], "--grid accumulate 2: must divide the batch size, 9"),
        (["--grid", "seed=0,1", "--overwrite", "--resume"], "--overwrite and --resume"),
        pytest.param(
            ["--grid", "batch_size=8,45"],
            "--batch-size 45: is larger than the 44 training images",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--grid", "seed=0,1", "--max-images", "3"], "--validation-fraction 0.1: ", marks=pytest.mark.slow
        ),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, options, message
):
    assert run_sweep(monkeypatch, tmp_path / "sweep", *options) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message}")
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _untrained(monkeypatch):
    """Sweeps that train nothing, but count their models and are stopped at the second."""
    calls = itertools.count(1)

    def stop_at_the_second(*_):
        if next(calls) == 2:
            raise InterruptedRunError(15)

    monkeypatch.setattr(train.sweep.groups, "compile_learner", lambda *_, **__: None)
    monkeypatch.setattr(train.sweep.groups, "train", stop_at_the_second)


@pytest.mark.slow
@pytest.mark.usefixtures("_untrained")
def test_a_sweep_is_stopped_and_kept_from_other_hands(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    run = partial(run_sweep, monkeypatch, folder)
    assert run("--grid", "seed=0,1,2") == 143
    shown = capsys.readouterr().err
    way_out = f"continue it with the same command and --resume --sweep-dir {folder}"
    assert shown == f"stopped by SIGTERM; the sweep is saved; {way_out}\n"
    assert [run.name for run in open_sweep(folder)] == ["1-seed=0", "2-seed=1"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    for options, message in {
        ("--grid", "seed=0,1,2"): f"--sweep-dir {folder}: holds a sweep; continue it with --resume, or replace it",
        ("--grid", "seed=0,1", "--resume"): f"--grid seed=0,1: the sweep in {folder} has seed=0,1,2; resume with",
        ("--grid", "seed=0,1,2", "--random", "3", "--resume"): "--random 3: the sweep in",
        ("--grid", "seed=0,1,2", "--width", "0.1", "--resume"): "--width 0.1: the sweep in",
    }.items():
        assert run(*options) == 2
        assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"} == {
        path: content for path, content in before.items() if path.name != ".lock"
    }
    (folder / "figures").mkdir()
    with lock_run(Run(folder / "2-seed=1")):
        assert run("--grid", "seed=0", "--overwrite") == 2
        assert "2-seed=1: in use by process" in capsys.readouterr().err
    assert [run.name for run in open_sweep(folder)] == ["1-seed=0", "2-seed=1"]
    run("--grid", "seed=5", "--overwrite")
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "1-seed=5", "sweep.json"]
    capsys.readouterr()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert run_sweep(monkeypatch, tmp_path / "other", "--grid", "seed=0", "--overwrite") == 2
    assert "exists but is not a sweep; choose another" in capsys.readouterr().err


def f1_of(macro, weighted):
    return {"f1_macro": macro, "f1_weighted": weighted}


def test_the_table_is_sorted_by_validation_and_never_by_test(tmp_path):
    def row(name: str, validation: float, test: float) -> Row:
        f1 = {"train": 1.0, "validation": validation, "test": test}
        return Row(
            name,
            {"seed": 0},
            3,
            {split: f1_of(value, value) for split, value in f1.items()},
        )

    rows = [row("1", 0.5, 0.9), Row("2", {"seed": 1}, diverged="the loss is nan at step 3"), row("3", 0.6, 0.1)]
    assert [row.name for row in sort_rows(rows)] == ["3", "1", "2"]
    write_models(tmp_path / "table.csv", sort_rows(rows))
    with (tmp_path / "table.csv").open() as file:
        found = [(line["model"], line["validation_f1_macro"], line["diverged"]) for line in csv.DictReader(file)]
    assert found == [("3", "0.6", ""), ("1", "0.5", ""), ("2", "", "the loss is nan at step 3")]


def test_the_mean_over_seeds_is_scipys_confidence_interval(tmp_path):
    """Against its own function for it, with two settings, a model that diverged and a setting of one model."""

    def row(rate: float, seed: int, score: float | None) -> Row:
        splits = {split: f1_of(score, score / 2) for split in ("train", "validation", "test")} if score else {}
        return Row(f"{rate}-{seed}", {"learning_rate": rate, "seed": seed}, None, splits)

    values = [0.61, 0.65, 0.64, 0.58]
    rows = [row(1e-3, seed, score) for seed, score in enumerate(values)]
    settings = average_over_seeds([*rows, row(1e-3, 4, None), row(1e-2, 0, 0.7), row(1e1, 0, None)])
    assert [(of.values, of.models) for of in settings] == [({"learning_rate": 1e-2}, 1), ({"learning_rate": 1e-3}, 4)]
    macro = settings[1].scores[1]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (macro.mean - macro.half_width, macro.mean + macro.half_width) == pytest.approx((low, high))
    assert np.isnan(settings[0].scores[0].half_width)
    assert f"{macro.mean:.3f} ± {macro.half_width:.3f}" in format_settings(settings)
    write_settings(tmp_path / "seeds.csv", settings)
    with (tmp_path / "seeds.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["learning_rate"], first["seeds"], second["seeds"]) == ("0.01", "1", "4")
    assert float(second["test_f1_weighted"]) == pytest.approx(macro.mean / 2)
    assert float(second["test_f1_weighted_half_width"]) == pytest.approx(macro.half_width / 2)


def test_the_mean_over_folds_counts_each_fold_once_whatever_its_seeds():
    def row(fold: int, seed: int, score: float) -> Row:
        splits = {split: f1_of(score, score) for split in ("train", "validation", "test")}
        return Row(f"{fold}-{seed}", {"dropout": 0.1, "seed": seed, "fold": fold}, None, splits)

    rows = [row(1, 0, 0.5), row(1, 1, 0.7), row(2, 0, 0.8), row(2, 1, 0.8), row(3, 0, 0.9)]
    (setting,) = average_over_folds(rows)
    assert (setting.values, setting.models) == ({"dropout": 0.1}, 3)
    low, high = stats.ttest_1samp([0.6, 0.8, 0.9], 0).confidence_interval(0.95)
    score = setting.scores[2]
    assert (score.mean - score.half_width, score.mean + score.half_width) == pytest.approx((low, high))
    assert "folds" in format_settings([setting], "folds").splitlines()[0]


def test_with_folds_every_combination_is_trained_on_every_fold():
    config = make_config("simplecnn", folds=3)
    models = make_models(config, parse_grid(config, ["dropout=0.1,0.5"]), None)
    assert [(of.config.training.dropout, of.config.training.fold) for of in models] == [
        (0.1, 1),
        (0.1, 2),
        (0.1, 3),
        (0.5, 1),
        (0.5, 2),
        (0.5, 3),
    ]
    # Folds alone are a sweep, too.
    assert list(parse_grid(config, [])) == ["fold"]


def sweeping(folder, *more: str):
    grid = ["--grid", "learning_rate=1e-3,1e30", *more]
    return command("train.__main__", "sweep", "tiny", "--sweep-dir", str(folder), *OPTIONS, *grid)


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_to_the_bits_of_models_that_were_trained_alone(processes, expected, tmp_path):
    folder = tmp_path / "sweep"
    good, diverged = "1-learning_rate=0.001", "2-learning_rate=1e+30"
    for change in ("os.rename .sweep-*.json", f"os.rename {good}/checkpoints/4.orbax-checkpoint-tmp"):
        killed = processes.start(sweeping(folder, "--resume"), before=killed_at(folder, Moment(change))).wait()
        assert killed.code == -9, killed
    finished = processes.start(sweeping(folder, "--resume")).wait()
    assert finished.code == 0, finished
    assert_same_run(folder / good, expected)

    with (folder / "table.csv").open() as file:
        first, last = csv.DictReader(file)
    assert (first["model"], last["model"]) == (good, diverged)
    assert re.match(r"the (loss is|\w+ are) .*(inf|nan).* step \d$", last["diverged"], re.IGNORECASE)
    assert last["test_f1_macro"] == ""
    manifest = json.loads((folder / good / "best" / "manifest.json").read_text("utf-8"))
    assert int(first["best_epoch"]) == manifest["epoch"]
    assert open_run(folder / diverged).config.is_file()

    again = processes.start(sweeping(folder, "--resume", "--checkpoint-every", "9")).wait()
    assert (again.code, again.out.splitlines()[-3:]) == (0, finished.out.splitlines()[-3:])
    assert "compiled" not in again.out
    # What may change is written down, also of a model that is finished.
    assert read_config(open_run(folder / good))["checkpoint_every"] == 9


@pytest.fixture
def two_processes(processes, tmp_path):
    """Two that share a sweep of two models, each held in the middle of the one it trains, until a file exists."""
    folder = tmp_path / "sweep"
    options = ["--sweep-dir", str(folder), *OPTIONS, "--grid", "seed=0,1", "--resume"]
    started = []
    for place, run in enumerate(("1-seed=0", "2-seed=1")):
        moment = Moment(f"os.rename {run}/checkpoints/4.orbax-checkpoint-tmp")
        hold = held_at(folder, moment, tmp_path / f"go {place}")
        started.append(processes.start(command("train.__main__", "sweep", "tiny", *options), before=hold))
        while not (folder / run / "checkpoints" / "2").exists():
            assert started[-1].process.is_alive()
            time.sleep(0.1)
    return started


@pytest.mark.slow
def test_processes_share_a_sweep_and_the_last_one_writes_the_tables(two_processes, expected, tmp_path):
    folder = tmp_path / "sweep"
    first, second = two_processes
    # One that would have the sweep to itself is refused.
    with pytest.raises(InUseError, match="sweep: in use by process"):
        lock_file(folder / ".lock").__enter__()
    (tmp_path / "go 1").touch()
    left = second.wait()
    assert left.code == 0, left
    assert f"in use     {folder / '1-seed=0'}" in left.out
    assert left.out.endswith("Other processes train the other models; the last one to end writes the tables.\n")
    assert not (folder / "table.csv").exists()

    (tmp_path / "go 0").touch()
    last = first.wait()
    assert last.code == 0, last
    assert [finished.out.count("compiled") for finished in (left, last)] == [1, 1]
    with (folder / "table.csv").open() as file:
        assert sorted(line["model"] for line in csv.DictReader(file)) == ["1-seed=0", "2-seed=1"]
    assert_same_run(folder / "1-seed=0", expected)


@pytest.mark.slow
def test_a_process_goes_on_with_the_model_of_one_that_died(two_processes, expected, tmp_path):
    first, second = two_processes
    first.process.kill()
    first.wait()
    (tmp_path / "go 1").touch()
    last = second.wait()
    assert (last.code, last.out.count("compiled"), last.out.count("resumed")) == (0, 2, 1), last
    assert (tmp_path / "sweep" / "table.csv").exists()
    assert_same_run(tmp_path / "sweep" / "1-seed=0", expected)
