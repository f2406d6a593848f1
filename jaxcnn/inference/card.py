"""python -m train card: write what people should know before they use a run's classifier, as a model card.

Mitchell et al.: Model cards for model reporting. FAT* 2019. The header is that of the Hugging Face Hub.
"""

import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
import tyro

from jaxcnn.errors import UserError, is_installed
from jaxcnn.evaluation import OVERALL, PER_CLASS, Estimates, estimate, fit_temperature
from jaxcnn.evaluation.bootstrap import LEVEL, RESAMPLES
from jaxcnn.evaluation.predictions import Predictions, ensemble
from jaxcnn.evaluation.tables import TITLES, score_cell
from jaxcnn.inference.trained import Trained, load_best
from jaxcnn.inference.unlike import REJECTED
from jaxcnn.models.table import MODELS
from jaxcnn.runs.files import telling_unwritable, whole_file
from jaxcnn.runs.folder import Run, open_run, read_config, read_data, read_environment, read_splits, read_unlike

ADDRESS = "hf://OWNER/NAME"
CALIBRATION = ("calibration_error", "brier_score", "log_loss")
_PROTOCOLS = {
    "leak-free": "no copy of a test image, and no image of a test patient, was trained on",
    "official": "the training images hold copies of test images, so that the scores measure memorisation, too",
}
_LIMITS = """\
- Research software, not a medical device. Nobody has tested it on patients; its answers are not a diagnosis.
- It knows only the classes above and answers with one of them whatever the image shows.
- The scores hold for images like those of the data set: another scanner, sequence, plane or patient group can change
  them, and nobody has measured by how much.
- The probabilities are as good as the calibration above, on images like those of the data set.
- A map of the evidence shows what moved the network, not what is true."""


def card(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")],
    *,
    licence: Annotated[str, tyro.conf.arg(name="license")] = "apache-2.0",
    overwrite: bool = False,
) -> None:
    """Write the model card of a finished run, RUN/README.md, with the header that the Hugging Face Hub reads.

    Args:
        folder: Run folder.
        licence: Licence of the weights, by its name on the hub. The data may demand another than this project's.
        overwrite: Replace a card that is there.
    """
    if not is_installed("huggingface_hub"):
        raise UserError(
            "model cards: need huggingface_hub, which is not installed: pip install -c constraints.txt -e '.[hub]'"
        )
    run = open_run(folder)
    if run.card.exists() and not overwrite:
        raise UserError(f"{run.card}: exists; replace it with --overwrite")
    text = card_text([run], licence)
    with telling_unwritable(run.card, "make the run writable"), whole_file(run.card) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(run.card)


def _header(run: Run, licence: str, scores: Estimates) -> str:
    """The YAML header, with the scores on the test images."""
    from huggingface_hub import EvalResult, ModelCardData

    source = _name(read_data(run)["source"])
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=source,
            dataset_name=source,
            dataset_split="test",
            metric_type=kind,
            metric_name=TITLES[name],
            metric_value=round(float(scores.of(name).value), 4),
        )
        for name, kind in (("accuracy", "accuracy"), ("f1_macro", "f1"), ("auc_macro", "roc_auc"))
    ]
    header = ModelCardData(
        license=licence,
        library_name="jaxcnn",
        pipeline_tag="image-classification",
        tags=["jax", "flax", "mri", "brain-tumor"],
        metrics=["accuracy", "f1", "roc_auc"],
        model_name=run.name,
        eval_results=results,
    )
    return f"---\n{header.to_yaml()}\n---\n\n"


def card_text(runs: Sequence[Run], licence: str | None = None) -> str:
    """The card as Markdown, with the header that the hub reads if it names a licence; of several runs their ensemble's.

    Raises:
        UserError: a run is not finished, or has no network, or can't be read, or they were trained on other images.
    """
    first, data, networks = runs[0], read_data(runs[0]), [load_best(run) for run in runs]
    for run in runs:
        if read_data(run)["fingerprints"] != data["fingerprints"]:
            raise UserError(
                f"{run.folder}: was trained on other images than {first.folder}; use runs of the same images"
            )
    predicted = [read_splits(run, ("validation", "test")) for run in runs]
    splits = {split: ensemble([each[split] for each in predicted]) for split in predicted[0]}
    trained, test, scores = networks[0], splits["test"], estimate(splits["test"])
    sections = {
        "How to use it": _use(trained),
        "Data": _data(data),
        "Scores": _scores(test, scores, data.get("crossing", {}).get("copied", ())),
        "Calibration": _calibration(splits, scores),
        "Images it can't judge": "\n\n".join(map(_unlike, runs, networks)),
        "Limits": _LIMITS,
        "Licence": f"The weights: {licence}. The images have a licence of their own." if licence else "",
        "How it was made": "\n\n".join(map(_origin, runs, networks)),
    }
    what = f"A {type(trained.model).__name__} that classifies slices of brain MRI, trained with jaxcnn."
    if len(runs) > 1:
        what = f"The mean of the probabilities of {len(runs)} networks that classify slices of brain MRI."
    parts = [f"# {', '.join(run.name for run in runs)}", what]
    header = _header(first, licence, scores) if licence else ""
    return header + "\n\n".join([*parts, *(f"## {name}\n\n{text}" for name, text in sections.items() if text)]) + "\n"


def _use(trained: Trained) -> str:
    height, width, _ = trained.image_shape
    options = vars(trained.preprocessing) | {"test-time augmentation": trained.tta}
    done = [f"{name.replace('_', ' ')} {value}" for name, value in options.items() if value not in (None, "none")]
    return f"""\
```python
import jaxcnn
classifier = jaxcnn.load("{ADDRESS}")  # Or a run folder.
probabilities = classifier(["scan.png", "scan.dcm"])
```

It takes image files (JPEG, PNG, TIFF, BMP, WebP, DICOM, NIfTI, MATLAB v7.3), Pillow images or arrays, turns them grey
and resizes them to {width}x{height}. Inside it: {", ".join(done) or "no other preprocessing"}.

The classes, in this order: {", ".join(trained.classes)}."""


def _data(data: Mapping[str, Any]) -> str:
    counts = data["images"]
    classes = sorted({label for own in counts.values() for label in own}, key=list(counts["train"]).index)
    rows = [(split, sum(own.values()), *(own.get(label, 0) for label in classes)) for split, own in counts.items()]
    patients = ", ".join(f"{count} {split}" for split, count in data.get("patients", {}).items())
    crossing, tested = data.get("crossing", {}), sum(counts["test"].values())
    facts = [
        f"Data set: {_name(data['source'])}; the test images are {data.get('test_images', 'published')}.",
        f"Protocol `{data['protocol']}`: {_PROTOCOLS.get(data['protocol'], 'unknown')}.",
        f"Audit: {crossing.get('test', 'an unknown number')} of {tested} test images have a near-duplicate, or an image"
        f" of the same patient, in Training; {data.get('left_out', 0)} training images were left out for that.",
        "Fingerprints: "
        + ", ".join(f"{split} `{fingerprint[:12]}`" for split, fingerprint in data["fingerprints"].items())
        + ".",
    ]
    facts += [f"Patients: {patients}."] if patients else []
    return _table(("split", "images", *classes), rows) + "\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _scores(test: Predictions, scores: Estimates, copied: Sequence[str]) -> str:
    heads = ("class", *(TITLES[name] for name in PER_CLASS))
    found = [scores.of(name) for name in PER_CLASS]
    each = [
        (label, *(score_cell(interval, (place,)) for interval in found)) for place, label in enumerate(test.classes)
    ]
    columns, unseen = {f"{len(test.labels)} test images": scores}, np.flatnonzero(~np.isin(test.names, copied))
    if 0 < len(unseen) < len(test.labels):
        columns[f"the {len(unseen)} without a copy in Training"] = estimate(test.take(unseen))
    names = [name for name in OVERALL if name not in CALIBRATION]
    overall = [
        (TITLES[name], *(score_cell(estimates.of(name), ()) for estimates in columns.values())) for name in names
    ]
    return (
        f"Nothing was trained or chosen on the test images. In brackets {LEVEL:.0%} intervals from {RESAMPLES}\n"
        f"resamples of groups of near-duplicates and patients.\n\n"
        f"{_table(('', *columns), overall)}\n\n{_table(heads, each)}"
    )


def _calibration(splits: Mapping[str, Predictions], scores: Estimates) -> str:
    validation = splits["validation"]
    columns = {"as it is": scores}
    try:
        temperature = fit_temperature(validation.logits, validation.labels)
        columns[f"at temperature {temperature:.3f}"] = estimate(splits["test"], temperature=temperature)
        told = (
            "The temperature, which the logits are divided by, is fitted on the validation images; it is not applied."
        )
    except ValueError as error:
        told = f"No temperature can be fitted on the validation images: {error}."
    rows = [
        (TITLES[name], *(score_cell(estimates.of(name), ()) for estimates in columns.values())) for name in CALIBRATION
    ]
    return f"{_table(('test', *columns), rows)}\n\n{told}"


def _unlike(run: Run, trained: Trained) -> str:
    if trained.unlike is None:
        return f"{run.name} doesn't know how unlike its training images an image is."
    text = (
        f"{run.name} tells how unlike its training images an image is; by construction, {REJECTED:.0%} of the\n"
        "validation images are called unlike. What is said of such an image means little."
    )
    rows = [(name, len(scores), f"{(scores > 1).mean():.1%}") for name, scores in read_unlike(run).items()]
    return f"{text}\n\n{_table(('images', 'number', 'called unlike'), rows)}" if rows else text


def _origin(run: Run, trained: Trained) -> str:
    environment = read_environment(run)
    versions = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return f"""\
```sh
{train_command(read_config(run))}
python -m train evaluate RUN
python -m train card RUN
```

- The weights are those after epoch {trained.epoch}, the best by macro F1 on the validation images.
- Git revision {environment.get("git_revision") or "unknown"}; {versions}; on {environment.get("device_kind")}.
- Folders of data and weights are named without their places."""


def train_command(config: Mapping[str, Any]) -> str:
    """The command that trains with this configuration."""
    model = config["model"]
    defaults = vars(MODELS[model].options()) if model in MODELS else {}
    words = []
    for field, value in config.items():
        option = f"--{field.replace('_', '-')}"
        if isinstance(value, bool):
            if value != (default := defaults.get(field, False)):
                words.append(option.replace("--", "--no-") if default else option)
        elif value is not None and field != "model":
            # Where a folder lies is nobody's business.
            words.append(f"{option} {shlex.quote(_name(str(value)))}")
    lines = textwrap.wrap(
        f"python -m train {model} {' '.join(words)}", 110, break_long_words=False, break_on_hyphens=False
    )
    return " \\\n    ".join(lines)


def _name(path: str) -> str:
    return PurePath(path).name or path


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
