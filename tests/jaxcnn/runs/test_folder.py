"""The run folder: what is written is read back, and what is there is never lost by mistake."""

import json
import math
import stat
from pathlib import Path

import numpy as np
import pytest
from scored_runs import DATA, ENVIRONMENT, epoch_line

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
    read_environment,
    read_epochs,
    read_predictions,
    read_splits,
    remove_leftovers,
    write_epochs,
    write_predictions,
)


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", {"epochs": 3}, DATA, ENVIRONMENT, overwrite=False)


def epochs(count, **changes):
    return [epoch_line(epoch, (0.1 + 0.2, 1e-9, epoch / 7)) | changes for epoch in range(1, count + 1)]


def make_predictions(classes=("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")):
    logits = np.random.default_rng(0).normal(size=(3, len(classes))).astype(np.float32)
    names = ("glioma_tumor/a (1).jpg", "ü.jpg", "c")
    return Predictions(logits, np.array([0, 1, len(classes) - 1], np.int32), np.array([0, 1, 0]), names, classes)


def test_config_data_epochs_and_predictions_round_trip(run):
    predictions = make_predictions()
    write_epochs(run, epochs(2))
    write_predictions(run, "test", predictions)

    again = open_run(run.folder)
    assert read_config(again) == {"epochs": 3}
    assert read_data(again) == DATA
    assert read_environment(again) == ENVIRONMENT
    assert read_epochs(again) == epochs(2)
    loaded = read_predictions(again, "test")
    np.testing.assert_array_equal(loaded.logits, predictions.logits)
    np.testing.assert_array_equal(loaded.labels, predictions.labels)
    np.testing.assert_array_equal(loaded.groups, predictions.groups)
    assert (loaded.names, loaded.classes) == (predictions.names, predictions.classes)


def test_the_best_epoch_has_the_highest_validation_f1_then_the_lowest_loss_then_it_is_the_last():
    scores = [(0.5, 0.1), (0.7, 0.9), (0.7, 0.4), (0.7, 0.4), (0.6, 0.2)]
    lines = [{"epoch": i, "validation_f1_macro": f1, "validation_loss": loss} for i, (f1, loss) in enumerate(scores)]
    assert [best_epoch(lines[:count])["epoch"] for count in range(1, 6)] == [0, 1, 2, 3, 3]


@pytest.mark.parametrize("name", ["validation_f1_macro", "validation_loss"])
def test_an_epoch_whose_scores_are_no_numbers_is_never_the_best(name):
    good = {"validation_f1_macro": 0.1, "validation_loss": 0.5}
    bad = {"validation_f1_macro": 0.9, "validation_loss": 0.5} | {name: math.nan}
    assert best_epoch([good, bad]) is good
    assert best_epoch([bad, good, bad]) is good


def test_a_score_that_is_no_number_is_null_in_the_file_and_comes_back(run):
    write_epochs(run, epochs(2, validation_loss=math.nan, test_loss=math.inf))
    lines = [json.loads(line, parse_constant=pytest.fail) for line in run.metrics.read_text("utf-8").splitlines()]
    assert [line["validation_loss"] for line in lines] == [None, None]
    for line in read_epochs(run):
        assert math.isnan(line["validation_loss"])
        assert math.isnan(line["test_loss"])
    # As older versions wrote it.
    run.metrics.write_text(run.metrics.read_text("utf-8").replace("null", "NaN"))
    assert all(math.isnan(line["validation_loss"]) for line in read_epochs(run))


def change_line(change):
    def damage(run):
        write_epochs(run, [epochs(1)[0], change(epochs(2)[1])])

    return damage


def change_array(**changes):
    def damage(run):
        with np.load(run.predictions("test")) as arrays:
            np.savez_compressed(run.predictions("test"), **{**arrays, **changes})

    return damage


def pickled(run):
    change_array(names=np.array([{}, "b", "c"], dtype=object))(run)


def cut_off(run):
    content = run.predictions("test").read_bytes()
    run.predictions("test").write_bytes(content[: len(content) // 2])


def one_array_alone(run):
    with run.predictions("test").open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    ("damage", "name", "reason"),
    [
        (lambda run: run.config.write_text('{"dropout": 1' + "0" * 300 + "}"), "config.json", "<= 9007199254740992"),
        (lambda run: run.config.write_text("[]"), "config.json", "Expected `object`"),
        (lambda run: run.data.write_text(json.dumps(DATA | {"protocol": None})), "data.json", "at `$.protocol`"),
        (lambda run: run.data.write_text(json.dumps(DATA | {"images": {"train": 3}})), "data.json", "`$.images.train`"),
        (lambda run: run.data.write_text(json.dumps(DATA | {"fingerprints": {}})), "data.json", "`$.fingerprints`"),
        (lambda run: run.data.write_text(json.dumps(DATA | {"crossing": [1]})), "data.json", "`$.crossing`"),
        (lambda run: run.environment.write_text('{"packages": {"jax": 1}}'), "environment.json", "`$.packages[...]`"),
        (change_line(lambda line: line | {"epoch": 1}), "metrics.jsonl", "line 2 is not of epoch 2"),
        (change_line(lambda _: {"epoch": 2}), "metrics.jsonl", "line 2 has no train_loss"),
        (change_line(lambda _: {}), "metrics.jsonl", "line 2 is not of epoch 2"),
        (change_line(lambda line: line | {"test_loss": "low"}), "metrics.jsonl", "got `str`"),
        (change_line(lambda line: line | {"test_loss": 1e300}), "metrics.jsonl", "<= 1e+100"),
        (cut_off, "test.npz", ""),
        (pickled, "test.npz", "allow_pickle=False"),
        (one_array_alone, "test.npz", ""),
        (lambda run: run.predictions("test").write_bytes(b""), "test.npz", "No data left in file"),
        (change_array(logits=np.zeros((3, 5), np.float32)), "test.npz", "float32(3, 5), expected float32(3, 4)"),
        (change_array(logits=np.zeros((3, 4), complex)), "test.npz", "logits are complex128(3, 4)"),
        (change_array(logits=np.full((3, 4), np.nan, np.float32)), "test.npz", "some logits are infinite or NaN"),
        (
            change_array(labels=np.array([0, 1, 4], np.int32)),
            "test.npz",
            "labels range from 0 to 4, but there are 4 classes",
        ),
        (change_array(labels=np.array([0, 1, -1], np.int32)), "test.npz", "labels range from -1 to 1"),
        (change_array(labels=np.array([0.5, 1, 2])), "test.npz", "labels are float64(3,)"),
        (change_array(labels=np.int32(1)), "test.npz", "labels are int32()"),
        (change_array(groups=np.zeros(3, np.uint8)), "test.npz", "groups are uint8(3,), expected i(3,)"),
        (change_array(groups=np.zeros(2, int)), "test.npz", "groups are int64(2,)"),
        (change_array(names=np.zeros((0,), "U1")), "test.npz", "names are <U1(0,)"),
        (change_array(classes=np.array(["a", "a", "b", "c"])), "test.npz", "classes are <U1(4,)"),
        (change_array(classes=np.array(["\udcff", "b", "c", "d"])), "test.npz", "surrogates not allowed"),
        (change_array(classes=np.arange(4)), "test.npz", "classes are int64(4,)"),
    ],
)  # fmt: skip
def test_a_file_with_other_content_is_told_in_one_line(run, damage, name, reason):
    write_predictions(run, "test", make_predictions())
    damage(run)
    readers = (read_config, read_data, read_environment, read_epochs, lambda run: read_predictions(run, "test"))
    messages = []
    for read in readers:
        try:
            read(run)
        except UserError as error:
            messages.append(str(error))
    [message] = messages
    assert f"{name}: is damaged (" in message
    assert reason in message
    assert message.endswith("); restore the file from a copy, or train again")
    assert "\n" not in message


def test_splits_of_other_classes_do_not_go_together(run):
    write_predictions(run, "train", make_predictions())
    write_predictions(run, "test", make_predictions())
    assert list(read_splits(run, ("train", "test"))) == ["train", "test"]
    write_predictions(run, "test", make_predictions(("a", "b", "c")))
    with pytest.raises(UserError, match=r"test\.npz: has other classes than train\.npz; train again"):
        read_splits(run, ("train", "test"))


def test_a_new_run_has_no_epochs_and_no_predictions(run):
    assert read_epochs(run) == []
    with pytest.raises(UserError, match="no such file"):
        read_predictions(run, "test")


def test_an_existing_run_is_replaced_only_when_asked(run):
    write_epochs(run, epochs(1))
    with pytest.raises(UserError, match="holds a run; resume or overwrite it"):
        create_run(run.folder, {}, {}, {}, overwrite=False)
    assert read_epochs(run) == epochs(1)
    create_run(run.folder, {}, {}, {}, overwrite=True)
    assert read_epochs(run) == []


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not a run folder"):
        create_run(tmp_path, {}, {}, {}, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text("utf-8") == "precious"
    with pytest.raises(UserError, match="no run folder"):
        open_run(tmp_path)


@pytest.mark.parametrize("locked", [False, True])
def test_a_folder_of_another_program_that_has_a_config_json_is_never_replaced(tmp_path, locked):
    for name in ("config.json", "model.safetensors", *([".lock"] if locked else [])):
        (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match="is not a run folder"):
        create_run(tmp_path, {}, {}, {}, overwrite=True)
    assert {(tmp_path / name).read_text("utf-8") for name in ("config.json", "model.safetensors")} == {"precious"}


def test_a_run_has_the_name_of_its_folder_wherever_it_is_named_from(run, monkeypatch):
    monkeypatch.chdir(run.folder)
    assert Run(Path(".")).name == Run(Path("../run")).name == "run"


def test_a_name_whose_bytes_are_no_text_can_be_printed(tmp_path):
    assert Run(tmp_path / "\udcffrun").name == r"\udcffrun"


def test_a_run_folder_inside_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory"):
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
    assert target.read_text("utf-8") == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["scores.csv"]
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_is_left_of_a_run_that_was_killed_while_it_was_made_is_replaced(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "environment.json", ".data.jaxcnn-tmp-a1b2c3d4.json"):
        (folder / name).write_text("half")
    run = create_run(folder, {"epochs": 3}, {}, {}, overwrite=False)
    assert {path.name for path in folder.iterdir()} == {".lock", "config.json", "data.json", "environment.json"}
    assert read_config(run) == {"epochs": 3}


def test_files_of_others_are_never_taken_for_what_is_left_of_a_run(tmp_path):
    for name in (".lock", "data.json", "thesis.tex"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="is not a run folder"):
        create_run(tmp_path, {}, {}, {}, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "data.json", "thesis.tex"}


def test_leftovers_of_a_killed_process_are_removed_and_the_best_classifier_put_back(run):
    """Killed between the two renames that replace the classifier, and while it wrote two files."""
    best, mark = ".best.jaxcnn-tmp-a1b2c3d4", ".jaxcnn-tmp-a1b2c3d4"
    for path in (f"{best}/written", f"{best}/replaced", "predictions", "figures", ".git"):
        (run.folder / path).mkdir(parents=True)
    (run.folder / best / "replaced" / "manifest.json").write_text("old")
    kept = {".lock", f"figures/.curves{mark}.png", ".git", ".my-notes.md", "predictions/.to-do.txt"}
    for path in (f".metrics{mark}.jsonl", f"predictions/.test{mark}.npz", *kept - {".git"}):
        (run.folder / path).touch()
    remove_leftovers(run)
    assert (run.best / "manifest.json").read_text("utf-8") == "old"
    # Another process may draw figures meanwhile, and what a user puts there is nobody else's.
    assert {str(path.relative_to(run.folder)) for path in run.folder.rglob(".*")} == kept
