"""Score finished runs with intervals, from their saved predictions or on another data set."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from scipy.special import softmax

from jaxcnn.cli import needed
from jaxcnn.data.protocol import Protocol
from jaxcnn.errors import UserError
from jaxcnn.evaluation import estimate, fit_temperature, mean_estimates, measures
from jaxcnn.evaluation.bootstrap import RESAMPLES
from jaxcnn.evaluation.evaluate_masks import MaskOptions, evaluate_masks, segments
from jaxcnn.evaluation.predictions import Predictions, ensemble
from jaxcnn.evaluation.tables import UNKNOWN, Evaluated, Evaluation, scores_document, table
from jaxcnn.runs.files import write_csv
from jaxcnn.runs.folder import (
    UNSEEN,
    Run,
    open_ensemble,
    open_folders,
    open_run,
    read_data,
    read_predictions,
    write_predictions,
    write_unlike,
)
from jaxcnn.runs.json_files import json_text

if TYPE_CHECKING:
    from jaxcnn.data.dataset import Dataset
    from jaxcnn.evaluation.external import External

Split = Literal["test", "validation", "train"]

# What follows from having been trained under the other protocol.
_CONSEQUENCES: dict[str | None, str] = {
    "leak-free": "so its training images include copies of test images and no evaluation of it is leak-free",
    "official": "which leaves out copies of test images that published scores were trained with",
}


def evaluate(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, needed("RUN [RUN ...]")],
    *,
    split: Split | None = None,
    data: str | None = None,
    matches: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="map", metavar="A=B")] = (),
    unseen: bool = False,
    compare: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None,
    together: Annotated[bool, tyro.conf.arg(name="ensemble")] = False,
    temperature: bool = False,
    unlike: bool = False,
    largest_component: bool = False,
    protocol: Protocol | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    csv_file: Annotated[Path | None, tyro.conf.arg(name="csv", metavar="FILE")] = None,
    machine_readable: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Score finished runs side by side, each score with a 95% interval.

    Args:
        runs: Run folders, sweep folders for all their runs, or folders of converted classifiers, which need --data the
            first time, or of exported ones, which always need it.
        split: Images to score; by default the test images, or with --data all images.
        data: Evaluate the best weights on this data set instead of the runs' own: a prepared data set, `phantom`, or a
            folder, zip or table of labelled images.
        matches: With --data, match class A of the data set to class B of the runs where their names differ; `A=` leaves
            out the images of class A. Can be given several times.
        unseen: Leave out test images that have a near-duplicate or an image of the same patient among the training
            images of the data set; with --data, leave out copies of the run's training and validation images.
        compare: Also report the difference between each run and this one; all must have the same images.
        together: Instead of each run, score the one that is best on the validation images, the mean of all their
            scores, and the ensemble that averages their probabilities; and report the differences to the ensemble.
        temperature: Divide the logits by the temperature that gives the lowest log loss on the validation images.
        unlike: Also measure how well the runs detect out-of-distribution images: noise, clouds, scenes and phantoms,
            against test images. Takes the images of the runs.
        largest_component: Of runs that segment, score only the largest connected component of each class in a patient.
        protocol: Refuse runs that were trained under another protocol.
        resamples: Number of resamples for the intervals; each resample draws whole groups of near-duplicates and
            patients.
        seed: Seed of the resamples.
        csv_file: Write one line per image to this file: run, image, label, prediction, and the probability of each
            class. Of runs that segment, one line per patient.
        machine_readable: Print JSON instead of tables.
    """
    if not runs:
        raise UserError("RUN: name at least one run folder")
    if resamples < 1:
        raise UserError(f"--resamples {resamples}: must be at least 1")
    if seed < 0:
        raise UserError(f"--seed {seed}: must be at least 0")
    if matches and data is None:
        raise UserError("--map: needs --data; name a data set, or leave --map out")
    if temperature and split == "validation" and data is None:
        raise UserError("--temperature: is fitted on the validation images; evaluate on --split test instead")
    if unseen and data is None and split not in (None, "test"):
        raise UserError(f"--unseen: applies to test images only; leave out --split {split}")
    if together and compare:
        raise UserError("--compare: the runs are compared with their ensemble; leave it or --ensemble out")
    # Everything is read and checked before anything takes time.
    opened = open_ensemble(runs) if together else open_folders([folder for folder in (*runs, compare) if folder])
    # A converted classifier has predictions once it was evaluated on some data.
    opened = opened if data is not None else [open_run(run.folder) for run in opened]
    if together and len(opened) < 2:
        raise UserError("--ensemble: needs at least two runs; name more, or a sweep over seeds")
    for run in opened:
        _check_protocol(run, protocol)
    if any(map(segments, opened)):
        refused = {"map": matches, "unseen": unseen, "compare": compare, "ensemble": together}
        for option, given in (refused | {"temperature": temperature, "unlike": unlike}).items():
            if given:
                raise UserError(f"--{option}: works only on runs that classify; leave it out")
        options = MaskOptions(split, data, resamples, seed, csv_file, machine_readable, largest_component)
        evaluate_masks(opened, options)
        return
    if largest_component:
        raise UserError("--largest-component: works only on runs that segment; leave it out")
    if data is None:
        found = [read_predictions(run, split or "test") for run in opened]
        if unseen:
            found = [_without_copies(run, predicted) for run, predicted in zip(opened, found, strict=True)]
        evaluated = list(map(_Predicted, found))
        images = f"{split or 'test'} images{' without a copy in Training' if unseen else ''}"
    else:
        evaluated = _of_data_set(opened, data, split, matches, unseen=unseen)
        images = f"images of {data}{' without a copy in the training images' if unseen else ''}"
    predictions = [predicted.predictions for predicted in evaluated]
    check_same_classes(opened, predictions)
    if compare or together:
        check_same_images(opened, predictions)

    def column(name: str, runs: Sequence[Run], predicted: _Predicted) -> Evaluated:
        by = _fit_temperature(runs, predicted.predictions.classes) if temperature else None
        estimates = estimate(predicted.predictions, temperature=by or 1.0, resamples=resamples, seed=seed)
        return Evaluated(
            name, _common([_protocol(run) for run in runs]), predicted.predictions, by, estimates, predicted.copies
        )

    columns = [column(str(run.folder), [run], predicted) for run, predicted in zip(opened, evaluated, strict=True)]
    if together:
        copies = _common([predicted.copies for predicted in evaluated])
        every = dataclasses.replace(evaluated[0], predictions=ensemble(predictions), copies=copies)
        columns = _together(columns, opened, column(f"ensemble of {len(opened)}", opened, every))
    evaluation = Evaluation(
        split or ("test" if data is None else "all"),
        resamples,
        seed,
        tuple(columns),
        compared=together or compare is not None,
        unseen=unseen,
        images=images,
        data=data,
        classes=evaluated[0].classes,
    )
    measured, texts = _measure_unlike(opened, together=together) if unlike else ({}, {})
    if machine_readable:
        print(json_text(scores_document(evaluation) | ({"unlike": measured} if unlike else {}), indent=2))
    else:
        print(table(evaluation))
        for name, text in texts.items():
            print(f"\n{name}: images unlike the training images\n\n{text}")
    if csv_file is not None:
        _write_predictions(csv_file, [columns[0], columns[-1]] if together else columns)


@dataclasses.dataclass(frozen=True)
class _Predicted:
    """What there is to score of a run.

    Attributes:
        predictions: of the images that count.
        copies: how many of all images are copies of those that the run was trained on; UNKNOWN where they are gone,
            and None of the run's own data set.
        classes: of another data set: each class, the run's that it is, and its images.
    """

    predictions: Predictions
    copies: int | str | None = None
    classes: tuple[tuple[str, str, int], ...] = ()


def _of_data_set(
    runs: Sequence[Run], data: str, split: Split | None, matches: Sequence[str], *, unseen: bool
) -> list[_Predicted]:
    # Only here: scores of the run's own data set need neither JAX nor images.
    from jaxcnn.evaluation.external import External, class_table, evaluate_external, load_external, match_classes
    from jaxcnn.inference.converted import load_classifier
    from jaxcnn.program_cache import keep_programs

    given = _parse_matches(matches)
    keep_programs()
    networks = [load_classifier(run.folder) for run in runs]
    # Runs may have been trained at several sizes.
    loaded = {
        size: load_external(data, size, (split,) if split else ())
        for size in {trained.image_shape[0] for trained in networks}
    }
    for line in next(iter(loaded.values()))[1]:
        print(line, file=sys.stderr)
    found = []
    for run, trained in zip(runs, networks, strict=True):
        dataset, _ = loaded[trained.image_shape[0]]
        matched = match_classes(dataset.classes, trained.classes, given)
        external: External = evaluate_external(run, trained, dataset, matched)
        found.append(_counted(run, external, class_table(matched, dataset), unseen=unseen))
        _keep(run, data, split, dataset, external)
    return found


def _parse_matches(texts: Sequence[str]) -> dict[str, str]:
    given = {}
    for text in texts:
        theirs, equals, ours = text.partition("=")
        if not (equals and theirs.strip()):
            raise UserError(f"--map {text}: is not of the form A=B; give the data set's class and the run's")
        given[theirs.strip()] = ours.strip()
    return given


def _counted(run: Run, external: "External", classes: tuple[tuple[str, str, int], ...], *, unseen: bool) -> _Predicted:
    if external.copied is None:
        if unseen:
            raise UserError(
                f"--unseen: the training images of {run.folder} are missing ({external.why_unknown}); leave it out"
            )
        return _Predicted(external.predictions, UNKNOWN, classes)
    copies, predictions = int(external.copied.sum()), external.predictions
    if unseen:
        if external.copied.all():
            raise UserError(f"--unseen: every image is a copy of one that {run.folder} was trained on; leave it out")
        predictions = predictions.take(np.flatnonzero(~external.copied))
    return _Predicted(predictions, copies, classes)


def _keep(run: Run, data: str, split: Split | None, dataset: "Dataset", external: "External") -> None:
    """Leave the predictions in the run folder, for figures and the report, if that can be written.

    An exported classifier's folder is what is sent, and stays as it is.
    """
    from jaxcnn.evaluation.external import external_name
    from jaxcnn.inference.converted import keep_as_run

    if run.kind == "exported":
        return
    name, source = external_name(run, data, split)
    unseen = f"{name}{UNSEEN}"
    try:
        write_predictions(run, name, external.predictions, source)
        if external.copied is not None and external.copied.any() and not external.copied.all():
            write_predictions(run, unseen, external.predictions.take(np.flatnonzero(~external.copied)), source)
        else:
            run.predictions(unseen).unlink(missing_ok=True)
        if run.kind == "converted":
            keep_as_run(run, data, dataset, external.predictions)
    except OSError as error:
        reason = error.strerror or error
        print(f"note: {run.folder}: can't save the predictions for figures: {reason}", file=sys.stderr)


def _write_predictions(path: Path, columns: Sequence[Evaluated]) -> None:
    classes = columns[0].predictions.classes
    lines: list[list[Any]] = [["run", "image", "label", "class", *classes]]
    for column in columns:
        logits = column.predictions.logits.astype(np.float64) / (column.temperature or 1.0)
        rows = zip(column.predictions.names, column.predictions.labels, softmax(logits, axis=1), strict=True)
        for name, label, probabilities in rows:
            given = classes[int(probabilities.argmax())]
            lines.append([column.name, name, classes[label], given, *probabilities.tolist()])
    write_csv(path, lines)


def _check_protocol(run: Run, protocol: Protocol | None) -> None:
    trained_under = _protocol(run)
    if protocol is not None and trained_under == UNKNOWN:
        raise UserError(f"--protocol {protocol}: the training images of {run.folder} are unknown; leave it out")
    if protocol not in (None, trained_under):
        raise UserError(
            f"--protocol {protocol}: {run.folder} was trained under {trained_under}, {_CONSEQUENCES[protocol]};"
            f" train again with --protocol {protocol}"
        )


def _protocol(run: Run) -> str:
    return read_data(run)["protocol"] if run.kind == "trained" else UNKNOWN


def _without_copies(run: Run, predictions: Predictions) -> Predictions:
    crossing = read_data(run).get("crossing")
    if crossing is None:
        raise UserError(f"--unseen: {run.data} doesn't list the test images that have copies; train again")
    kept = ~np.isin(predictions.names, crossing["copied"])
    if not kept.any():
        raise UserError(
            f"--unseen: every test image of {run.folder} has a copy among the training images; leave it out"
        )
    return predictions.take(np.flatnonzero(kept))


def _measure_unlike(opened: Sequence[Run], *, together: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """For each run, or for the ensemble, as JSON and as text; that of a run is kept in its folder, for figures."""
    # Scores alone need neither JAX nor images.
    from jaxcnn.evaluation.rejection import OWN, measure_unlike, unlike_document, unlike_table
    from jaxcnn.inference.classifier import Classifier
    from jaxcnn.inference.converted import load_members
    from jaxcnn.program_cache import keep_programs

    keep_programs()
    found = {}
    for runs in [opened] if together else [[run] for run in opened]:
        scores = measure_unlike(runs, Classifier(load_members(runs)))
        if len(runs) == 1:
            write_unlike(runs[0], scores)
        name = f"ensemble of {len(runs)}" if together else str(runs[0].folder)
        own = {split: ensemble([read_predictions(run, split) for run in runs]) for split in OWN}
        found[name] = unlike_document(scores, own)
    return found, {name: unlike_table(document) for name, document in found.items()}


def _together(columns: Sequence[Evaluated], runs: Sequence[Run], every: Evaluated) -> list[Evaluated]:
    """The best run on the validation images, the mean of all, and the ensemble."""
    validated = [read_predictions(run, "validation") for run in runs]
    f1 = [float(measures(predicted.logits, predicted.labels).f1_macro[0]) for predicted in validated]
    mean = mean_estimates([column.estimates for column in columns])
    return [
        columns[int(np.argmax(f1))],
        dataclasses.replace(every, name=f"mean of {len(columns)}", temperature=None, estimates=mean),
        every,
    ]


def _common(values: Sequence[Any]) -> Any:
    """The value that all have; UNKNOWN where they differ."""
    return values[0] if all(value == values[0] for value in values) else UNKNOWN


def _fit_temperature(runs: Sequence[Run], classes: tuple[str, ...]) -> float:
    run, found = runs[0], [read_predictions(run, "validation") for run in runs]
    if any(predicted.classes != classes for predicted in found):
        raise UserError(f"{run.predictions('validation')}: has other classes than the run; train again")
    check_same_images(runs, found)
    validation = ensemble(found)
    try:
        return fit_temperature(validation.logits, validation.labels)
    except ValueError as error:
        raise UserError(
            f"--temperature: can't be fitted on the validation images of {run.folder}: {error}; leave it out"
        ) from error


def check_same_classes(runs: Sequence[Run], predictions: Sequence[Predictions]) -> None:
    """Refuse to put predictions of other classes side by side."""
    for run, predicted in zip(runs, predictions, strict=True):
        if predicted.classes != predictions[0].classes:
            raise UserError(
                f"{run.folder}: has the classes {', '.join(predicted.classes)},"
                f" {runs[0].folder} has {', '.join(predictions[0].classes)}; evaluate them one by one"
            )


def check_same_images(runs: Sequence[Run], predictions: Sequence[Predictions]) -> None:
    """Refuse to pair or combine predictions of different images; runs are compared with the last one."""
    *compared, reference = zip(runs, predictions, strict=True)
    for run, predicted in compared:
        same = predicted.names == reference[1].names and np.array_equal(predicted.labels, reference[1].labels)
        if not (same and np.array_equal(predicted.groups, reference[1].groups)):
            raise UserError(
                f"{reference[0].folder}: its images, labels or groups are not those of {run.folder};"
                " compare or combine runs that were trained with the same --data, and evaluate them on --split test"
            )
