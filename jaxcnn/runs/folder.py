"""Read and write a run folder: training writes it, the figures read it.

config.json         what the run is a function of, beside its images
data.json           which images those are: protocol, counts, fingerprints
environment.json    versions, device, git revision
metrics.jsonl       one flat line an epoch
predictions/        SPLIT.npz: logits, labels, groups (near-duplicates, patients), names; in external/ the same for
                    other data sets, NAME.npz, and NAME-unseen.npz without copies of training images; of a run that
                    segments, masks in the place of logits and labels;
                    unlike.npz: how unlike the training images its own and foreign images are
checkpoints/        the last two, to go on from
best/               the classifier that was best on the validation images
figures/            PNG files
tensorboard/        a file of events an epoch, if they were asked for
README.md           the model card, if it was asked for
.lock               held by the process that works on the run (`jaxcnn.runs.lock`); marks the folder as one of ours
"""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar

import msgspec
import numpy as np

from jaxcnn.data.dataset import SPLITS
from jaxcnn.errors import UserError, printable
from jaxcnn.evaluation.masks import MaskPredictions
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.evaluation.tasks import task_of
from jaxcnn.runs.files import clear_leftovers, is_temporary, whole_file
from jaxcnn.runs.json_files import (
    Count,
    Number,
    damage_as_user_error,
    json_text,
    read_json,
    read_json_lines,
    write_json,
)

_WAY_OUT = "restore the file from a copy, or train again"

Value = TypeVar("Value")


class _BySplit(TypedDict, Generic[Value]):
    train: Value
    validation: Value
    test: Value


class _Crossing(TypedDict):
    copied: list[str]


class _Data(TypedDict):
    source: str
    protocol: Annotated[str, msgspec.Meta(pattern="^[ -~]+$")]
    images: _BySplit[dict[str, Count]]
    fingerprints: _BySplit[str]
    left_out: NotRequired[Count]
    crossing: NotRequired[_Crossing]
    test_images: NotRequired[str]
    patients: NotRequired[dict[str, Count]]


class _Environment(TypedDict):
    packages: dict[str, str]
    python: NotRequired[str]
    device_kind: NotRequired[str]
    device_count: NotRequired[Count]
    git_revision: NotRequired[str | None]


# In predictions/: the folder of those for other data sets, and how the names of those without copies end.
EXTERNAL, UNSEEN = "external", "-unseen"


class Inside:
    """The address of a file or a folder inside another one, which the instance has as its `folder`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Path:
        return instance.folder / self.name


Kind = Literal["trained", "converted", "exported"]


@dataclasses.dataclass(frozen=True)
class Run:
    """The addresses inside a run folder; see above for what is there."""

    folder: Path

    config = Inside("config.json")
    data = Inside("data.json")
    environment = Inside("environment.json")
    metrics = Inside("metrics.jsonl")
    checkpoints = Inside("checkpoints")
    best = Inside("best")
    manifest = Inside("manifest.json")
    exported = Inside("classifier.json")
    figures = Inside("figures")
    events = Inside("tensorboard")
    card = Inside("README.md")
    lock = Inside(".lock")

    @property
    def name(self) -> str:
        """The name of the run in figures."""
        return printable(self.folder.resolve().name)

    @property
    def kind(self) -> Kind | None:
        """What the folder holds: a trained run, converted weights, an exported classifier, or none of these."""
        # Where converted weights were evaluated they have a configuration as well.
        marks: dict[Kind, Path] = {"converted": self.manifest, "exported": self.exported, "trained": self.config}
        return next((kind for kind, mark in marks.items() if mark.is_file()), None)

    def predictions(self, split: str) -> Path:
        """NPZ: the logits for every image of a split, or of EXTERNAL/NAME, another data set."""
        return self.folder / "predictions" / f"{split}.npz"


def create_run(
    folder: Path, config: Mapping[str, Any], data: Mapping[str, Any], environment: Mapping[str, Any], *, overwrite: bool
) -> Run:
    """Make a new run folder, and remove what is left of a run that was killed before it was made.

    The caller holds the folder's lock (`jaxcnn.runs.lock`): with `overwrite` all that is in it goes.

    Raises:
        UserError: the folder exists and `overwrite` is off, or it exists and is no run folder, or can't be written.
    """
    run = Run(folder)
    check_run_folder(run)
    if run.config.is_file() and not overwrite:
        raise UserError(f"{folder}: holds a run; resume or overwrite it, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run.lock.touch()
        # Without its configuration it is no run any more; so whatever is killed from here on can be started again.
        run.config.unlink(missing_ok=True)
        for path in folder.iterdir():
            if path != run.lock:
                _remove(path)
        write_json(run.environment, environment)
        write_json(run.data, data)
        write_json(run.config, config)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; choose a folder that can be written") from error
    return run


def check_run_folder(run: Run) -> None:
    """Check that a run can start or continue in the folder: it is missing, empty, a run, or the rest of a killed run.

    Raises:
        UserError: it holds something else.
    """
    if run.kind == "converted":
        raise UserError(f"{run.folder}: holds converted weights; choose another")
    try:
        # Other programs have a config.json, too. It is written last, so that a run with one has the others as well.
        if not run.folder.exists() or all(path.is_file() for path in (run.config, run.data, run.environment)):
            return
        names = {path.name for path in run.folder.iterdir()}
    except OSError as error:
        raise UserError(f"{run.folder}: {error.strerror}; choose another") from error
    ours = {path.name for path in (run.lock, run.environment, run.data, run.metrics, run.checkpoints, run.best)}
    ours |= {run.figures.name, run.events.name, run.predictions("").parent.name}
    if names and not (run.lock.name in names and all(name in ours or is_temporary(name) for name in names)):
        raise UserError(f"{run.folder}: exists but is not a run folder; choose another")


def remove_leftovers(run: Run) -> None:
    """Remove what a process that was killed while it wrote has left behind; the caller holds the run's lock."""
    clear_leftovers(run.best)
    for folder in (run.folder, run.predictions("").parent, run.events):
        for path in folder.glob(".*"):
            if is_temporary(path.name):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def open_run(folder: Path) -> Run:
    """Open an existing run folder.

    Raises:
        UserError: there is none.
    """
    run = Run(folder)
    if run.kind == "converted" and not run.config.is_file():
        raise UserError(
            f"{folder}: holds converted weights without predictions;"
            f" make some with python -m train evaluate {folder} --data DATA"
        )
    if run.kind == "exported":
        raise UserError(
            f"{folder}: is an exported classifier, which keeps no predictions; name the run that it was made from"
        )
    if not run.config.is_file():
        raise UserError(f"{folder}: no run folder (it has no config.json); make one with python -m train simplecnn")
    return run


def open_sweep(folder: Path) -> tuple[Run, ...]:
    """List the runs in a sweep's folder, sorted by name.

    Raises:
        UserError: there is none.
    """
    runs = tuple(Run(config.parent) for config in sorted(folder.glob("*/config.json")))
    if not runs:
        raise UserError(f"{folder}: no run folder in it; make some with python -m train sweep")
    return runs


def is_sweep(folder: Path) -> bool:
    """Whether the folder holds run folders."""
    return any(folder.glob("*/config.json"))


def open_folders(folders: Sequence[Path]) -> list[Run]:
    """Open runs, and for each sweep all its runs that have ended, sorted by name.

    Raises:
        UserError: a folder is none of these, or no run of the sweep has ended.
    """
    found = []
    for folder in folders:
        run = Run(folder)
        if run.kind or not is_sweep(folder):
            found.append(run if run.kind in ("converted", "exported") else open_run(folder))
        elif ended := [run for run in open_sweep(folder) if run.predictions("test").exists()]:
            found += ended
        else:
            raise UserError(f"{folder}: none of its runs has ended; continue the sweep with --resume")
    return found


def open_ensemble(folders: Sequence[Path]) -> list[Run]:
    """Open runs that are used as one: those that are named, and of a sweep all that have ended, if only seeds differ.

    Raises:
        UserError: they differ in more; or see `open_folders`.
    """
    if not folders:
        raise UserError("RUN: name at least one run folder")
    for folder in folders:
        configs = [] if Run(folder).kind else [read_config(run) for run in open_folders([folder])]
        if other := [
            name for config in configs for name in config if name != "seed" and config[name] != configs[0].get(name)
        ]:
            raise UserError(f"{folder}: its runs differ in {other[0]}, not in the seed alone; name the runs to combine")
    return open_folders(folders)


def read_config(run: Run) -> dict[str, Any]:
    """Read the configuration of a run.

    Raises:
        UserError: config.json can't be read or is damaged; so it is with the other files below.
    """
    return read_json(run.config, dict[str, Number | bool | str | list[Any] | dict[str, Any]], way_out=_WAY_OUT)


def read_environment(run: Run) -> dict[str, Any]:
    """Read where the run was started; `packages` is always there."""
    return read_json(run.environment, _Environment, way_out=_WAY_OUT)


def read_data(run: Run) -> dict[str, Any]:
    """Read the description of the images; source, protocol, images and fingerprints are always there."""
    return read_json(run.data, _Data, way_out=_WAY_OUT)


def write_epochs(run: Run, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Replace metrics.jsonl: one line an epoch; NaN and infinity become null."""
    with whole_file(run.metrics) as temporary:
        temporary.write_text("".join(json_text(epoch) + "\n" for epoch in epochs), "utf-8")


def read_epochs(run: Run) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl, first epoch first, with NaN for null; the list may be empty."""
    if not run.metrics.exists():
        return []
    lines = read_json_lines(run.metrics, dict[str, Number], way_out=_WAY_OUT)
    with damage_as_user_error(run.metrics, _WAY_OUT):
        for place, line in enumerate(lines, start=1):
            if line.get("epoch") != place:
                raise ValueError(f"line {place} is not of epoch {place}")
            needed = [f"{split}_{score}" for split in SPLITS for score in task_of(line).scores_of(split)]
            if missing := [name for name in needed if name not in line]:
                raise ValueError(f"line {place} has no {missing[0]}")
    return [{name: math.nan if value is None else value for name, value in line.items()} for line in lines]


def best_epoch(epochs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Find the line of the epoch whose classifier is kept: the last one with the highest rank."""
    return max(reversed(epochs), key=rank)


def rank(epoch: Mapping[str, Any]) -> tuple[float, float]:
    """Rank an epoch, higher is better: macro F1 on the validation images, or Dice, then their loss; NaN is worst."""
    score, loss = epoch[f"validation_{task_of(epoch).best}"], epoch["validation_loss"]
    return (score, -loss) if math.isfinite(score) and math.isfinite(loss) else (-math.inf, -math.inf)


def write_predictions(
    run: Run, split: str, predictions: Predictions | MaskPredictions, source: str | None = None
) -> None:
    """Write predictions/SPLIT.npz, and in it where another data set is; strings are unicode arrays, not pickled."""
    path = run.predictions(split)
    with whole_file(path) as temporary:
        about: dict[str, Any] = {} if source is None else {"source": source}
        np.savez_compressed(temporary, **dataclasses.asdict(predictions), **about)


def read_source(run: Run, split: str) -> str | None:
    """Where the data set of predictions/SPLIT.npz is; None if there is no such file, or it doesn't say."""
    # What is damaged may be written anew.
    with contextlib.suppress(UserError), _opened(run.predictions(split)) as stored:
        return str(stored["source"]) if "source" in stored else None
    return None


def read_predictions(run: Run, split: str) -> Predictions:
    """Read predictions/SPLIT.npz; the logits are finite.

    Raises:
        UserError: the run has none, since it didn't end; or the file can't be read or is damaged.
    """
    with _opened(run.predictions(split)) as stored:
        if "predicted" in stored:
            raise UserError(
                f"{run.folder}: is a run that segments, and has masks in the place of classes; give another"
            )
        arrays = {name: stored[name] for name in ("logits", "labels", "groups", "names", "classes")}
        _check_predictions(**arrays)
        names, classes = (tuple(arrays[name].tolist()) for name in ("names", "classes"))
    return Predictions(arrays["logits"], arrays["labels"], arrays["groups"], names, classes)


def read_masks(run: Run, split: str) -> MaskPredictions:
    """Read predictions/SPLIT.npz of a run that segments.

    Raises:
        UserError: it is a run of another kind, or didn't end; or the file can't be read or is damaged.
    """
    with _opened(run.predictions(split)) as stored:
        if "logits" in stored:
            raise UserError(f"{run.folder}: is a run that classifies; give one of python -m train segmentation")
        arrays = {name: stored[name] for name in ("predicted", "true", "patients", "names", "classes")}
        masks, count = (arrays["predicted"], arrays["true"]), arrays["names"].size
        for mask in masks:
            if mask.dtype != np.uint8 or mask.ndim != 3 or mask.shape != (count, *masks[0].shape[1:]):
                raise ValueError(f"masks are {mask.dtype}{mask.shape}, of {count} images")
            if mask.max(initial=0) >= arrays["classes"].size:
                raise ValueError(f"masks go up to {mask.max()}, but there are {arrays['classes'].size} classes")
        names, patients, classes = (tuple(map(str, arrays[name])) for name in ("names", "patients", "classes"))
        if not count or len(patients) != count or len(classes) < 2:
            raise ValueError(f"{count} images, {len(patients)} patients, {len(classes)} classes")
    return MaskPredictions(*masks, patients, names, classes)


@contextlib.contextmanager
def _opened(path: Path, way_out: str = _WAY_OUT) -> Iterator[Any]:
    if not path.exists():
        raise UserError(f"{path}: no such file; finish the run first, by resuming it")
    with (
        damage_as_user_error(path, way_out),
        # NumPy wouldn't close the file where it is damaged.
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as stored,
    ):
        yield stored


def _check_predictions(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: np.ndarray, classes: np.ndarray
) -> None:
    """Raise ValueError where the arrays are not as `write_predictions` writes them."""
    for what, array, kind, shape in (
        ("names", names, "U", (max(1, names.size),)),
        ("classes", classes, "U", (max(2, len(set(classes.flat))),)),
        ("labels", labels, "int32", (names.size,)),
        ("groups", groups, "i", (names.size,)),
        ("logits", logits, "float32", (names.size, classes.size)),
    ):
        if kind not in (array.dtype.kind, array.dtype.name) or array.shape != shape:
            raise ValueError(f"{what} are {array.dtype}{array.shape}, expected {kind}{shape}")
    "".join(classes.flat).encode()
    if not np.isfinite(logits).all():
        raise ValueError("some logits are infinite or NaN")
    if labels.min() < 0 or labels.max() >= classes.size:
        raise ValueError(f"labels range from {labels.min()} to {labels.max()}, but there are {classes.size} classes")


def write_unlike(run: Run, scores: Mapping[str, Any]) -> None:
    """Write predictions/unlike.npz: how unlike its training images a run finds its own and foreign images."""
    with whole_file(run.predictions("unlike")) as temporary:
        np.savez_compressed(temporary, **scores)


def read_unlike(run: Run) -> dict[str, np.ndarray]:
    """Read predictions/unlike.npz: a number for each image of `validation`, `test` and foreign sets; {} without one.

    Raises:
        UserError: the file can't be read or is damaged, or is not of the run's test images.
    """
    path = run.predictions("unlike")
    if not path.exists():
        return {}
    way_out = f"make it again with python -m train evaluate {run.folder} --unlike"
    with _opened(path, way_out) as stored:
        scores = {name: stored[name] for name in stored.files}
        if scores["test"].shape != (len(read_predictions(run, "test").labels),):
            raise ValueError("it is of other test images")
        if not all(
            score.ndim == 1 and score.dtype == np.float32 and np.isfinite(score).all() for score in scores.values()
        ):
            raise ValueError("some numbers are none, or infinite or NaN")
    return scores


def read_splits(run: Run, splits: Sequence[str]) -> dict[str, Predictions]:
    """Read the predictions for several splits, which must have the same classes.

    Raises:
        UserError: they aren't, or see `read_predictions`.
    """
    found = {split: read_predictions(run, split) for split in splits}
    for split, predictions in found.items():
        if predictions.classes != found[splits[0]].classes:
            raise UserError(f"{run.predictions(split)}: has other classes than {splits[0]}.npz; train again")
    return found
