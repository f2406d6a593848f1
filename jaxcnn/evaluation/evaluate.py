"""Scores of finished runs, with intervals, from their predictions alone: no images and no model are needed."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from jaxcnn.data.protocol import Protocol
from jaxcnn.errors import UserError
from jaxcnn.evaluation import estimate, fit_temperature
from jaxcnn.evaluation.bootstrap import RESAMPLES
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.evaluation.tables import Evaluated, Evaluation, scores_document, table
from jaxcnn.runs.folder import Run, open_run, read_data, read_predictions, read_splits
from jaxcnn.runs.json_files import json_text

Split = Literal["test", "validation", "train"]

# What follows from having been trained under the other protocol.
_CONSEQUENCES: dict[str | None, str] = {
    "leak-free": "with copies of test images among its training images, so that no evaluation of it can be leak-free",
    "official": "without the training images that are copies of test images, which published scores had",
}


def evaluate(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    *,
    split: Split = "test",
    unseen: bool = False,
    compare: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None,
    temperature: bool = False,
    protocol: Protocol | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    machine_readable: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Scores of finished runs, a column a run, each score with a 95% interval.

    Args:
        runs: run folders.
        split: the images to evaluate on.
        unseen: leave out the test images that have a near-duplicate among the training images of the data set.
        compare: tell by how much each run differs from this one, too; they must have the same images.
        temperature: first divide the logits by the temperature with the lowest log loss on the validation images.
        protocol: refuse runs that were trained under another protocol.
        resamples: how often the groups of near-duplicates are drawn anew for the intervals.
        seed: of the resamples.
        machine_readable: print JSON instead of tables.
    """
    if not runs:
        raise UserError("RUN: name at least one run folder")
    if resamples < 1:
        raise UserError(f"--resamples {resamples}: must be at least 1")
    if seed < 0:
        raise UserError(f"--seed {seed}: must be at least 0")
    if temperature and split == "validation":
        raise UserError("--temperature: is fitted on the validation images; evaluate it on --split test")
    if unseen and split != "test":
        raise UserError(f"--unseen: is about test images; leave out --split {split}")
    # Everything is read and checked before anything takes time.
    opened = [open_run(folder) for folder in (*runs, compare) if folder]
    predictions = [_read(run, split, protocol) for run in opened]
    if unseen:
        predictions = [_without_copies(run, of) for run, of in zip(opened, predictions, strict=True)]
    _check_same_classes(opened, predictions)
    if compare:
        _check_same_images(opened, predictions)
    temperatures = [_fit_temperature(run, split) if temperature else None for run in opened]
    columns = [
        Evaluated(
            run.folder,
            read_data(run)["protocol"],
            of,
            by,
            estimate(of, temperature=by or 1.0, resamples=resamples, seed=seed),
        )
        for run, of, by in zip(opened, predictions, temperatures, strict=True)
    ]
    evaluation = Evaluation(split, resamples, seed, tuple(columns), compared=compare is not None, unseen=unseen)
    print(json_text(scores_document(evaluation), indent=2) if machine_readable else table(evaluation))


def _read(run: Run, split: Split, protocol: Protocol | None) -> Predictions:
    trained_under = read_data(run)["protocol"]
    if protocol not in (None, trained_under):
        raise UserError(
            f"--protocol {protocol}: {run.folder} was trained under {trained_under}, {_CONSEQUENCES[protocol]};"
            f" train again with --protocol {protocol}"
        )
    return read_predictions(run, split)


def _without_copies(run: Run, predictions: Predictions) -> Predictions:
    crossing = read_data(run).get("crossing")
    if crossing is None:
        raise UserError(f"--unseen: {run.data} doesn't name the test images with copies; train again")
    kept = ~np.isin(predictions.names, crossing["copied"])
    if not kept.any():
        raise UserError(
            f"--unseen: every test image of {run.folder} has a copy among the training images; leave it out"
        )
    return predictions.take(np.flatnonzero(kept))


def _fit_temperature(run: Run, split: Split) -> float:
    validation = read_splits(run, (split, "validation"))["validation"]
    try:
        return fit_temperature(validation.logits, validation.labels)
    except ValueError as error:
        raise UserError(
            f"--temperature: none is best on the validation images of {run.folder}: {error}; leave it out"
        ) from error


def _check_same_classes(runs: list[Run], predictions: list[Predictions]) -> None:
    for run, of in zip(runs, predictions, strict=True):
        if of.classes != predictions[0].classes:
            raise UserError(
                f"{run.folder}: has the classes {', '.join(of.classes)},"
                f" {runs[0].folder} has {', '.join(predictions[0].classes)}; evaluate them one by one"
            )


def _check_same_images(runs: list[Run], predictions: list[Predictions]) -> None:
    """Refuse to pair predictions of different images; runs are compared with the last one."""
    *compared, reference = zip(runs, predictions, strict=True)
    for run, of in compared:
        same = of.names == reference[1].names and np.array_equal(of.labels, reference[1].labels)
        if not (same and np.array_equal(of.groups, reference[1].groups)):
            raise UserError(
                f"--compare {reference[0].folder}: its images, labels or groups are not those of {run.folder};"
                " compare runs that were trained with the same --data and evaluate them on --split test"
            )
