"""python -m train check-labels: labels that were turned are found, and an image that only some get wrong isn't."""

import csv
from functools import partial

import numpy as np
import pytest
from scored_runs import DATA, ENVIRONMENT, save_run
from sklearn.metrics import accuracy_score, f1_score

from jaxcnn.data.kaggle import CLASSES
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.folder import SPLITS, create_run, open_run, read_predictions, write_predictions

IMAGES, TURNED, HARD = 80, (3, 17, 40, 66), (5, 9)


@pytest.fixture
def runs(tmp_path):
    """Three models that know the true classes; four labels were turned, and two images mislead some of the models."""
    true = np.arange(IMAGES) % 4
    labels = true.astype(np.int32)
    labels[list(TURNED)] = (labels[list(TURNED)] + 1) % 4
    for seed in range(3):
        run = create_run(tmp_path / f"run-{seed}", {"seed": seed}, DATA, ENVIRONMENT, overwrite=False)
        seen = true.copy()
        # Two models take the first for the same wrong class, and each model takes the second for another.
        seen[HARD[0]] = true[HARD[0]] if seed == 0 else 3
        seen[HARD[1]] = (true[HARD[1]] + 1 + seed) % 4
        logits = np.random.default_rng(seed).normal(size=(IMAGES, 4)) * 0.1 + 3 * np.eye(4)[seen]
        for split in SPLITS:
            names = tuple(f"{split}/{place}.jpg" for place in range(IMAGES))
            write_predictions(
                run, split, Predictions(logits.astype(np.float32), labels, np.arange(IMAGES), names, CLASSES)
            )
    return [tmp_path / f"run-{seed}" for seed in range(3)]


@pytest.fixture
def check_labels(run_train):
    return partial(run_train, "check-labels")


def test_the_labels_that_were_turned_are_listed_and_no_others(runs, check_labels, tmp_path):
    code, out, _ = check_labels(*runs, "--csv", tmp_path / "doubts.csv")
    assert not code
    assert out.startswith("4 of 80 test images have a label that none of 3 runs agrees with")
    with (tmp_path / "doubts.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["image"] for line in lines} == {f"test/{place}.jpg" for place in TURNED}
    assert [float(line["mean_probability"]) for line in lines] == sorted(
        (float(line["mean_probability"]) for line in lines), reverse=True
    )
    for line in lines:
        place = int(line["image"].removeprefix("test/").removesuffix(".jpg"))
        assert (line["label"], line["predicted"]) == (CLASSES[(place + 1) % 4], CLASSES[place % 4])
        assert 0.8 < float(line["lowest_probability"]) <= float(line["mean_probability"]) < 1


def test_scores_stand_beside_those_without_the_listed_images(runs, check_labels):
    _, out, _ = check_labels(*runs, "--split", "validation")
    for folder in runs:
        line = next(line for line in out.splitlines() if line.startswith(str(folder)))
        of = read_predictions(open_run(folder), "validation")
        kept = np.setdiff1d(np.arange(IMAGES), TURNED)
        given = of.logits.argmax(axis=1)
        expected = [
            measure
            for chosen in (np.arange(IMAGES), kept)
            for measure in (
                accuracy_score(of.labels[chosen], given[chosen]),
                f1_score(of.labels[chosen], given[chosen], average="macro"),
            )
        ]
        assert line.split()[1:] == [f"{value:.3f}" for value in expected]


def test_wrong_input_is_told_in_one_line(runs, check_labels, tmp_path):
    other = save_run(tmp_path / "other", {}, [], predictions=True).folder
    for words, message in (
        ([runs[0]], "RUN: name at least two runs"),
        ([runs[0], other], "its images, labels or groups are not those of"),
        ([*runs, "--csv", runs[0] / "config.json" / "x.csv"], "can't be written"),
        ([runs[0], tmp_path / "none"], "no run folder"),
    ):
        code, _, err = check_labels(*words)
        assert code == 2
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1
