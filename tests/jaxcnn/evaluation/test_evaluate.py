"""python -m train evaluate, as a user types it, on runs whose scores are known."""

import dataclasses
import json
import re
from functools import partial

import numpy as np
import pytest
from random_run import random_trained, save_random_run
from scipy.special import softmax
from scored_runs import DATA, ENVIRONMENT
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import describe, partition
from jaxcnn.evaluation import fit_temperature
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.inference.classifier import Classifier
from jaxcnn.inference.trained import predict_logits, save_trained
from jaxcnn.inference.unlike import fit_unlike, foreign_images
from jaxcnn.runs.folder import Run, create_run, read_predictions, read_unlike, write_predictions

SMALL = SimpleCNN(stem_features=(2, 3), squeeze_features=2, skip_features=6, head_features=5, hidden_features=6)


def make_run(folder, seed, *, protocol="leak-free", sharpness=1.0, labels=None, groups=None, skill=1.5):
    """A run with 160 images of each split, of which the model knows as much as `skill` says."""
    run = create_run(folder, {}, DATA | {"protocol": protocol}, ENVIRONMENT, overwrite=False)
    for number, split in enumerate(("train", "validation", "test")):
        random = np.random.default_rng([seed, number])
        of = np.arange(160, dtype=np.int32) % 4 if labels is None else labels
        logits = sharpness * (random.normal(size=(len(of), 4)) + skill * np.eye(4)[of])
        names = tuple(f"{split}/{i}.jpg" for i in range(len(of)))
        where = np.arange(len(of)) // 2 * 2 if groups is None else groups
        write_predictions(run, split, Predictions(logits.astype(np.float32), of, where, names, CLASSES))
    return run


@pytest.fixture
def evaluate(run_train):
    """Run the command; gives the exit code, stdout and stderr."""
    return partial(run_train, "evaluate")


@pytest.fixture
def as_json(evaluate):
    def run(*words):
        code, out, err = evaluate(*words, "--json", "--resamples", 200)
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


def read_arrays(path):
    with np.load(path) as stored:
        return dict(stored)


def reference_scores(run, split):
    arrays = read_arrays(run.predictions(split))
    logits, labels = arrays["logits"].astype(np.float64), arrays["labels"]
    p, predicted = softmax(logits, axis=1), logits.argmax(axis=1)
    return {
        "accuracy": accuracy_score(labels, predicted),
        "f1_macro": f1_score(labels, predicted, average="macro"),
        "auc_macro": roc_auc_score(labels, p, multi_class="ovr"),
        "log_loss": log_loss(labels, p),
    }


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_scores_are_those_of_the_split_and_lie_in_their_intervals(tmp_path, as_json, split):
    run = make_run(tmp_path / "a", 0)
    found = as_json(run.folder, "--split", split)
    assert (found["split"], found["resamples"], found["seed"], found["level"]) == (split, 200, 0, 0.95)
    [of_run] = found["runs"]
    assert (of_run["run"], of_run["protocol"], of_run["temperature"]) == (str(run.folder), "leak-free", None)
    assert (of_run["images"], of_run["groups"]) == (160, 80)
    assert of_run["images_per_class"] == dict.fromkeys(CLASSES, 40)
    for name, value in reference_scores(run, split).items():
        assert of_run["measures"][name]["value"] == pytest.approx(value)
        assert of_run["measures"][name]["low"] < value < of_run["measures"][name]["high"]
    assert set(of_run["classes"]) == set(CLASSES)


def test_unseen_images_are_those_without_a_copy_in_training(tmp_path, evaluate, as_json):
    run = make_run(tmp_path / "a", 0)
    copied = [f"test/{i}.jpg" for i in range(0, 160, 3)]
    run.data.write_text(json.dumps(DATA | {"crossing": {"copied": copied}}))
    [of_run] = as_json(run.folder, "--unseen")["runs"]
    with np.load(run.predictions("test")) as arrays:
        kept = np.arange(160) % 3 > 0
        expected = accuracy_score(arrays["labels"][kept], arrays["logits"][kept].argmax(axis=1))
    assert (of_run["images"], of_run["measures"]["accuracy"]["value"]) == (kept.sum(), pytest.approx(expected))
    # A pair of near-duplicates of which one has a copy still is a group, of one.
    assert of_run["groups"] == 80
    assert "test images without a copy in Training" in evaluate(run.folder, "--unseen")[1]


def test_the_table_tells_what_the_json_tells(tmp_path, evaluate, as_json):
    folders = [make_run(tmp_path / name, seed).folder for seed, name in enumerate("ab")]
    options = (*folders, "--compare", make_run(tmp_path / "c", 2, protocol="official").folder)
    found = as_json(*options)
    table = evaluate(*options, "--resamples", 200)[1]
    assert re.search(r"^ +a +b +c$", table, re.MULTILINE)
    assert re.search(r"^protocol +leak-free +leak-free +official$", table, re.MULTILINE)
    assert re.search(r"^ +a - c +b - c$", table, re.MULTILINE)
    cells = [
        " +".join(re.escape(f"{v['value']:{sign}.3f} [{v['low']:{sign}.3f}, {v['high']:{sign}.3f}]") for v in values)
        for sign, section in (("", found["runs"]), ("+", found["differences"]))
        for values in ([run["measures"]["f1_macro"] for run in section],)
    ]
    for row in cells:
        assert re.search(rf"^macro F1 +{row}$", table, re.MULTILINE)
    recalls = [run["classes"]["no_tumor"]["recall"]["value"] for run in found["runs"]]
    section = table[table.index("\nno_tumor ") :]
    assert re.findall(r"(\d\.\d{3}) \[", re.search(r"^  recall .*$", section, re.MULTILINE)[0]) == [
        f"{recall:.3f}" for recall in recalls
    ]


def test_a_run_does_not_differ_from_itself(tmp_path, as_json):
    run = make_run(tmp_path / "a", 0)
    [difference] = as_json(run.folder, "--compare", run.folder)["differences"]
    everything = [*difference["measures"].values(), *(m for of in difference["classes"].values() for m in of.values())]
    assert len(everything) == 8 + 4 * 4
    assert all(measure == {"value": 0, "low": 0, "high": 0} for measure in everything)


def test_a_difference_is_surer_than_the_scores_it_is_of(tmp_path, as_json):
    # The same logits but for one image in ten.
    first, second = make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 0)
    with np.load(second.predictions("test")) as arrays:
        changed = {key: arrays[key] for key in arrays}
    changed["logits"][::10] = np.roll(changed["logits"][::10], 1, axis=1)
    np.savez(second.predictions("test"), **changed)
    found = as_json(first.folder, "--compare", second.folder)
    values = [run["measures"]["accuracy"]["value"] for run in found["runs"]]
    difference = found["differences"][0]["measures"]["accuracy"]
    assert difference["value"] == pytest.approx(values[0] - values[1])
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    widths = [m["high"] - m["low"] for m in (difference, found["runs"][0]["measures"]["accuracy"])]
    assert widths[0] < widths[1]


def test_the_temperature_undoes_what_made_a_model_too_sure_of_itself(tmp_path, as_json):
    plain, sharp = make_run(tmp_path / "plain", 0), make_run(tmp_path / "sharp", 0, sharpness=5)
    scaled = as_json(plain.folder, sharp.folder, "--temperature")["runs"]
    # Fitted on the validation images, not on those that are evaluated.
    validation = read_predictions(plain, "validation")
    assert scaled[0]["temperature"] == pytest.approx(fit_temperature(validation.logits, validation.labels))
    assert scaled[1]["temperature"] == pytest.approx(5 * scaled[0]["temperature"], rel=1e-4)
    assert scaled[1]["measures"]["log_loss"]["value"] == pytest.approx(scaled[0]["measures"]["log_loss"]["value"])
    raw = as_json(sharp.folder)["runs"][0]["measures"]
    assert raw["log_loss"]["value"] > scaled[1]["measures"]["log_loss"]["value"]
    assert raw["accuracy"] == scaled[1]["measures"]["accuracy"]


def test_the_seed_decides_the_intervals_and_nothing_else(tmp_path, evaluate):
    run = make_run(tmp_path / "a", 0)
    same = [evaluate(run.folder, "--resamples", 100, "--seed", seed)[1] for seed in (3, 3, 4)]
    assert same[0] == same[1] != same[2]
    assert re.findall(r"(\d\.\d+) \[", same[0]) == re.findall(r"(\d\.\d+) \[", same[2])


def test_a_class_without_images_has_dashes_and_nulls(tmp_path, evaluate, as_json):
    run = make_run(tmp_path / "a", 0, labels=np.arange(60, dtype=np.int32) % 3)
    of_class = as_json(run.folder)["runs"][0]["classes"][CLASSES[3]]
    assert of_class["recall"] == of_class["auc"] == {"value": None, "low": None, "high": None}
    table = evaluate(run.folder)[1]
    assert re.search(rf"^{CLASSES[3]} +0 images\n(  .*\n)*  ROC AUC +–$", table, re.MULTILINE)


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path, evaluate):
    folders = [make_run(tmp_path / parent / "run", 0).folder for parent in "ab"]
    assert re.search(rf"^ +{folders[0]} +{folders[1]}$", evaluate(*folders)[1], re.MULTILINE)


def test_a_protocol_that_a_run_was_not_trained_under_is_refused_and_it_says_why(tmp_path, evaluate):
    clean, leaky = make_run(tmp_path / "clean", 0).folder, make_run(tmp_path / "leaky", 0, protocol="official").folder
    assert evaluate(clean, "--protocol", "leak-free")[0] == 0
    code, out, err = evaluate(clean, leaky, "--protocol", "leak-free")
    assert (code, out) == (2, "")
    assert err == (
        f"error: --protocol leak-free: {leaky} was trained under official, so its training images include"
        " copies of test images and no evaluation of it is leak-free; train again with --protocol leak-free\n"
    )
    code, _, err = evaluate(clean, "--protocol", "official")
    assert code == 2
    assert "was trained under leak-free, which leaves out copies of test images that published scores" in err


def test_different_images_are_not_compared(tmp_path, evaluate):
    run = make_run(tmp_path / "a", 0).folder
    labels = np.arange(160, dtype=np.int32) % 4
    for name, other in (
        ("labels", make_run(tmp_path / "labels", 1, labels=labels[::-1].copy())),
        ("number", make_run(tmp_path / "number", 1, labels=labels[:100])),
        ("groups", make_run(tmp_path / "groups", 1, groups=np.arange(160))),
    ):
        code, out, err = evaluate(run, "--compare", other.folder)
        assert (code, out, err.count("\n")) == (2, "", 1), name
        assert f"error: {other.folder}: its images, labels or groups are not those of {run}" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RUN: name at least one run folder"),
        (["/no/such/run"], "/no/such/run: no run folder"),
        (["RUN", "--resamples", "0"], "--resamples 0: must be at least 1"),
        (["RUN", "--seed", "-1"], "--seed -1: must be at least 0"),
        (["RUN", "--split", "validation", "--temperature"], "--temperature: is fitted on the validation images"),
        (["RUN", "--split", "Testing"], "Testing"),
        (["RUN", "--unseen"], "data.json doesn't list the test images that have copies; train again"),
        (["RUN", "--unseen", "--split", "train"], "--unseen: applies to test images only; leave out --split train"),
        (["COPIED", "--unseen"], "has a copy among the training images; leave it out"),
        (["PERFECT", "--temperature"], "perfect: all images are classified correctly"),
        (["BROKEN"], "test.npz: is damaged (some logits are infinite or NaN)"),
        (["YOUNG"], "finish the run first"),
        (["BARE"], "data.json: is damaged (Object missing required field `source`)"),
    ],
)
def test_wrong_input_is_told_in_one_line(tmp_path, evaluate, words, message):
    runs = {
        "RUN": make_run(tmp_path / "run", 0),
        "PERFECT": make_run(tmp_path / "perfect", 0, skill=50),
        "BROKEN": make_run(tmp_path / "broken", 0, sharpness=np.inf),
        "YOUNG": create_run(tmp_path / "young", {}, DATA, ENVIRONMENT, overwrite=False),
        "COPIED": make_run(tmp_path / "copied", 0),
        "BARE": create_run(tmp_path / "bare", {}, {}, {}, overwrite=False),
    }
    everything = [f"test/{i}.jpg" for i in range(160)]
    runs["COPIED"].data.write_text(json.dumps(DATA | {"crossing": {"copied": everything}}))
    code, out, err = evaluate(*(runs[word].folder if word in runs else word for word in words))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def make_sweep(folder, seeds=3, **options):
    for seed in range(seeds):
        run = make_run(folder / f"{seed + 1}-seed={seed}", seed, **options)
        run.config.write_text(json.dumps({"model": "simplecnn", "seed": seed}))
    return folder


def test_an_ensemble_is_scored_by_the_mean_of_the_probabilities_beside_the_best_and_the_mean(tmp_path, as_json):
    sweep = make_sweep(tmp_path / "sweep")
    every = as_json(sweep)["runs"]
    best, mean, ensemble = as_json(sweep, "--ensemble", "--csv", tmp_path / "all.csv")["runs"]
    assert [of["run"] for of in (mean, ensemble)] == ["mean of 3", "ensemble of 3"]
    f1 = {of["run"]: of["measures"]["f1_macro"]["value"] for of in as_json(sweep, "--split", "validation")["runs"]}
    assert best == next(of for of in every if of["run"] == max(f1, key=f1.get))
    for name in ("accuracy", "f1_macro", "log_loss"):
        values = [of["measures"][name]["value"] for of in every]
        assert mean["measures"][name]["value"] == pytest.approx(np.mean(values))
        assert mean["measures"][name]["low"] < np.mean(values) < mean["measures"][name]["high"]

    stored = [read_arrays(path) for path in sorted(sweep.glob("*/predictions/test.npz"))]
    labels, p = stored[0]["labels"], np.mean([softmax(of["logits"], axis=1) for of in stored], axis=0)
    assert ensemble["measures"]["accuracy"]["value"] == pytest.approx(accuracy_score(labels, p.argmax(axis=1)))
    assert ensemble["measures"]["log_loss"]["value"] == pytest.approx(log_loss(labels, p))
    # Each knows something that the others don't.
    assert ensemble["measures"]["accuracy"]["value"] > mean["measures"]["accuracy"]["value"]
    lines = (tmp_path / "all.csv").read_text("utf-8").splitlines()
    assert {line.split(",")[0] for line in lines[1:]} == {best["run"], "ensemble of 3"}


def test_the_differences_are_to_the_ensemble_and_its_temperature_is_its_own(tmp_path, evaluate, as_json):
    sweep = make_sweep(tmp_path / "sweep", sharpness=4)
    found = as_json(sweep, "--ensemble", "--temperature")
    best, mean, ensemble = found["runs"]
    assert mean["temperature"] is None
    stored = [read_arrays(path) for path in sorted(sweep.glob("*/predictions/validation.npz"))]
    p = np.mean([softmax(of["logits"], axis=1) for of in stored], axis=0)
    assert ensemble["temperature"] == pytest.approx(fit_temperature(np.log(p), stored[0]["labels"]), rel=1e-4)
    assert ensemble["temperature"] < best["temperature"]  # The mean is less sure.
    assert [of["minus"] for of in found["differences"]] == ["ensemble of 3"] * 2
    difference = found["differences"][1]["measures"]["accuracy"]["value"]
    values = [of["measures"]["accuracy"]["value"] for of in (mean, ensemble)]
    assert difference == pytest.approx(values[0] - values[1])
    assert re.search(r"^temperature +\d\.\d+ +– +\d\.\d+$", evaluate(sweep, "--ensemble", "--temperature")[1], re.M)


def test_what_is_no_ensemble_is_told_in_one_line(tmp_path, evaluate):
    sweep, one = make_sweep(tmp_path / "sweep"), make_run(tmp_path / "one", 0)
    grid = make_sweep(tmp_path / "grid", 2)
    (grid / "2-seed=1" / "config.json").write_text('{"model": "simplecnn", "seed": 1, "dropout": 0.5}')
    young = create_run(tmp_path / "young" / "1", {}, DATA, ENVIRONMENT, overwrite=False).folder.parent
    others = make_run(tmp_path / "others", 0, labels=np.arange(100, dtype=np.int32) % 4)
    for words, problem in [
        ([one.folder], "--ensemble: needs at least two runs; name more"),
        ([grid], f"{grid}: its runs differ in dropout, not in the seed alone; name the runs to combine"),
        ([young], f"{young}: none of its runs has ended"),
        ([sweep, "--compare", one.folder], "--compare: the runs are compared with their ensemble"),
        ([sweep, others.folder], "its images, labels or groups are not those of"),
    ]:
        code, out, err = evaluate(*words, "--ensemble")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert problem in err
    assert evaluate(grid)[0] == 0


@pytest.mark.slow
def test_what_the_measure_of_unlike_images_is_worth(tmp_path, as_json, evaluate):
    """On a run of the phantom whose network is random: its features are enough to tell noise from a head."""
    loaded = load_dataset("phantom", 60)
    dataset, leakage = partition(loaded, "leak-free", 0.2, seed=0)
    size = dataset.splits["train"].images.shape[1]
    train, validation = (dataset.splits[name].images for name in ("train", "validation"))
    trained = fit_unlike(random_trained(SMALL, size, image_size=50), train, validation)
    run = Run(save_random_run(tmp_path / "run", trained))
    run.data.write_text(json.dumps(describe(dataset, leakage, "leak-free")))
    for name, split in dataset.splits.items():
        logits = predict_logits(trained, split.images)
        write_predictions(run, name, Predictions(logits, split.labels, split.groups, split.names, CLASSES))

    found = as_json(run.folder, "--unlike")["unlike"][str(run.folder)]
    assert list(found["sets"]) == ["validation", "test", "noise", "clouds", "scenes"]
    kept = read_unlike(run)
    classifier = Classifier((trained,))
    np.testing.assert_allclose(kept["test"], classifier.unlike(dataset.splits["test"].images), rtol=1e-4)
    np.testing.assert_allclose(kept["noise"], classifier.unlike(foreign_images(size)["noise"]), rtol=1e-4)
    for name in ("noise", "clouds", "scenes"):
        both, labels = (
            np.concatenate([kept["test"], kept[name]]),
            np.arange(len(kept["test"]) + 100) >= len(kept["test"]),
        )
        auroc = found["sets"][name]["auroc_against"]["test"]
        assert auroc["value"] == pytest.approx(roc_auc_score(labels, both))
        assert auroc["low"] <= auroc["value"] <= auroc["high"]
    assert found["sets"]["noise"]["unlike"] > 0.9
    stored = read_predictions(run, "test")
    right, answered = stored.logits.argmax(axis=1) == stored.labels, kept["test"] <= 1
    assert found["at_threshold"] == pytest.approx({"coverage": answered.mean(), "accuracy": right[answered].mean()})
    assert re.search(
        r"^noise +100 +\d\.\d{3}( +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]){2}$", evaluate(run.folder, "--unlike")[1], re.M
    )

    save_trained(run.best, dataclasses.replace(trained, unlike=None))
    code, out, err = evaluate(run.folder, "--unlike")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"--unlike: {run.folder} doesn't know how unlike its training images an image is; train again" in err
