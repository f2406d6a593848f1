"""Score finished runs that segment, by patient and by slice."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnn.errors import UserError
from jaxcnn.evaluation.masks import MaskPredictions
from jaxcnn.evaluation.patients import (
    masks_document,
    patient_table,
    score_patients,
    summarise_patients,
    summary_table,
    write_patients,
)
from jaxcnn.runs.folder import Run, read_config, read_masks
from jaxcnn.runs.json_files import json_text
from jaxcnn.runs.trees import read_manifest


@dataclasses.dataclass(frozen=True)
class MaskOptions:
    """The options of `python -m train evaluate` that runs that segment take."""

    split: str | None
    data: str | None
    resamples: int
    seed: int
    csv_file: Path | None
    machine_readable: bool
    largest_component: bool


def segments(run: Run) -> bool:
    """Whether a run or a converted network segments."""
    from jaxcnn.models.table import MODELS

    if run.kind == "converted":
        return read_manifest(run.folder, dict[str, Any]).get("model") == "UNet"
    if run.kind == "exported":
        return False  # Only classifiers are exported.
    model = MODELS.get(str(read_config(run).get("model")))
    return model is not None and model.task == "segmentation"


def evaluate_masks(runs: Sequence[Run], options: MaskOptions) -> None:
    """Score runs that segment, and print and write what the options say.

    Raises:
        UserError: a run classifies, or has no masks; or the data set can't be read or doesn't fit.
    """
    for run in runs:
        if not segments(run):
            raise UserError(f"{run.folder}: is a run that classifies, and others segment; evaluate them one by one")
    data, split = options.data, options.split
    found = [read_masks(run, split or "test") if data is None else _predict(run, data, split) for run in runs]
    if options.largest_component:
        found = [masks.largest_components() for masks in found]
    scored = [({"run": str(run.folder)}, masks, score_patients(masks)) for run, masks in zip(runs, found, strict=True)]
    summaries = [summarise_patients(scores, options.resamples, seed=options.seed) for _, _, scores in scored]
    if options.machine_readable:
        pairs = zip(scored, summaries, strict=True)
        documents = [about | masks_document(masks, scores, summary) for (about, masks, scores), summary in pairs]
        print(json_text({"runs": documents}, indent=2))
    else:
        if len(runs) == 1:
            print(patient_table(*scored[0][1:]), end="\n\n")
        print(summary_table([str(run.folder) for run in runs], summaries))
        print(f"\n95% intervals from {options.resamples} resamples of whole patients.")
    if options.csv_file is not None:
        write_patients(options.csv_file, scored)


def _predict(run: Run, data: str, split: str | None) -> MaskPredictions:
    # Only here: scores of the run's own data set need neither JAX nor images.
    from jaxcnn.data.dataset import joined
    from jaxcnn.data.load import load_dataset
    from jaxcnn.inference.segmentation import load_segmenter, predict_split
    from jaxcnn.program_cache import keep_programs

    keep_programs()
    trained, dataset = load_segmenter(run.folder), load_dataset(data, masks=True)
    if split and split not in dataset.splits:
        raise UserError(f"--split {split}: {data} has no such split; leave it out")
    if len(dataset.classes) != len(trained.classes):
        theirs, ours = (", ".join(classes) for classes in (dataset.classes, trained.classes))
        raise UserError(f"--data {data}: has the classes {theirs}, {run.folder} has {ours}; give other images")
    chosen = [dataset.splits[split]] if split else list(dataset.splits.values())
    try:
        return predict_split(trained, joined(chosen))
    except ValueError as error:
        raise UserError(f"--data {data}: {error}; give other images") from error
