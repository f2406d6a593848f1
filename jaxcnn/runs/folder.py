"""The run folder: written by training, read by the figures.

config.json         what the run is a function of, beside its images
data.json           which images those are: protocol, counts, fingerprints
environment.json    versions, device, git revision
metrics.jsonl       one flat line an epoch
predictions/        SPLIT.npz: logits, labels, groups (near-duplicates, patients), names; in external/ the same for
                    other data sets, NAME.npz, and NAME-unseen.npz without copies of training images
checkpoints/        the last two, to go on from
best/               the classifier that was best on the validation images
figures/            PNG files
.lock               held by the process that works on the run (`jaxcnn.runs.lock`); marks the folder as one of ours
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.errors import UserError
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.files import whole_file

# In predictions/: the folder of those for other data sets, and how the names of those without copies end.
EXTERNAL, UNSEEN = "external", "-unseen"


@dataclasses.dataclass(frozen=True)
class Run:
    """The addresses inside a run folder."""

    folder: Path

    @property
    def name(self) -> str:
        """What a figure calls the run."""
        return self.folder.resolve().name

    @property
    def config(self) -> Path:
        """JSON: the configuration."""
        return self.folder / "config.json"

    @property
    def data(self) -> Path:
        """JSON: which images the run is a function of."""
        return self.folder / "data.json"

    @property
    def environment(self) -> Path:
        """JSON: where the run took place."""
        return self.folder / "environment.json"

    @property
    def metrics(self) -> Path:
        """JSON lines: one an epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Orbax's folder."""
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """Folder of the best classifier; see `jaxcnn.inference.trained`."""
        return self.folder / "best"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.folder / "figures"

    @property
    def lock(self) -> Path:
        """What the process that works on the run holds."""
        return self.folder / ".lock"

    def predictions(self, split: str) -> Path:
        """NPZ: the logits for every image of a split, or of EXTERNAL/NAME, another data set."""
        return self.folder / "predictions" / f"{split}.npz"


def create_run(
    folder: Path,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    overwrite: bool,
) -> Run:
    """Make a new run folder, in the place of what is left of a run that was killed before it was made.

    The caller holds the folder's lock (`jaxcnn.runs.lock`): with `overwrite` all that is in it goes.

    Raises:
        UserError: the folder exists and `overwrite` is off, or it exists and is no run folder, or can't be written.
    """
    run = Run(folder)
    check_run_folder(run)
    if run.config.is_file() and not overwrite:
        raise UserError(f"--run-dir {folder}: holds a run; go on with --resume, replace it with --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run.lock.touch()
        # Without its configuration it is no run any more; so whatever is killed from here on can be started again.
        run.config.unlink(missing_ok=True)
        for path in folder.iterdir():
            if path != run.lock:
                _remove(path)
        _write_json(run.environment, environment)
        _write_json(run.data, data)
        _write_json(run.config, config)
    except OSError as error:
        raise UserError(f"--run-dir {folder}: {error.strerror}; choose a folder that can be written") from error
    return run


def check_run_folder(run: Run) -> None:
    """See that a run may be made or go on in the folder: it is missing or empty, or a run, or what a kill left of one.

    Raises:
        UserError: it holds something else.
    """
    try:
        # Other programs have a config.json, too. It is written last, so that a run with one has the others as well.
        if not run.folder.exists() or all(path.is_file() for path in (run.config, run.data, run.environment)):
            return
        names = {path.name for path in run.folder.iterdir()}
    except OSError as error:
        raise UserError(f"--run-dir {run.folder}: {error.strerror}; choose another") from error
    ours = {path.name for path in (run.lock, run.environment, run.data, run.metrics, run.checkpoints, run.best)}
    ours |= {run.figures.name, run.predictions("").parent.name}
    if names and not (run.lock.name in names and all(name in ours or _is_temporary(name) for name in names)):
        raise UserError(f"--run-dir {run.folder}: exists and is no run folder; choose another")


def remove_leftovers(run: Run) -> None:
    """Remove what a process that was killed while it wrote has left behind; the caller holds the run's lock."""
    for replaced in run.folder.glob(f".{run.best.name}-*/replaced"):
        # It was killed after the old classifier was moved out of the way, before the new one came.
        if not run.best.exists():
            replaced.rename(run.best)
    for folder in (run.folder, run.predictions("").parent):
        for path in folder.glob(".*"):
            if _is_temporary(path.name):
                _remove(path)


def _is_temporary(name: str) -> bool:
    """Whether this is a name that something has until it is whole; see `jaxcnn.runs.files`."""
    return name.startswith(".") and "-" in name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def open_run(folder: Path) -> Run:
    """An existing run folder.

    Raises:
        UserError: there is none.
    """
    run = Run(folder)
    if not run.config.is_file():
        raise UserError(f"{folder}: no run folder (it has no config.json); python -m train simplecnn makes one")
    return run


def open_sweep(folder: Path) -> tuple[Run, ...]:
    """The runs in a sweep's folder, sorted by name.

    Raises:
        UserError: there is none.
    """
    runs = tuple(Run(config.parent) for config in sorted(folder.glob("*/config.json")))
    if not runs:
        raise UserError(f"{folder}: no run folder in it; python -m train sweep makes some")
    return runs


def read_config(run: Run) -> dict[str, Any]:
    """The configuration as it was written."""
    return json.loads(run.config.read_text())


def read_environment(run: Run) -> dict[str, Any]:
    """Where the run was started, as it was written."""
    return json.loads(run.environment.read_text())


def read_data(run: Run) -> dict[str, Any]:
    """What describes the images, as it was written."""
    return json.loads(run.data.read_text())


def write_epochs(run: Run, epochs: list[dict[str, Any]]) -> None:
    """Replace metrics.jsonl: one line an epoch."""
    with whole_file(run.metrics) as temporary:
        temporary.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def read_epochs(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, the first epoch first; none yet is an empty list."""
    return [json.loads(line) for line in run.metrics.read_text().splitlines()] if run.metrics.exists() else []


def best_epoch(epochs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The line of the epoch whose classifier is kept: the last of those with the highest rank."""
    return max(reversed(epochs), key=rank)


def rank(epoch: Mapping[str, Any]) -> tuple[float, float]:
    """The higher, the better: macro F1 on the validation images, then their loss."""
    return epoch["validation_f1_macro"], -epoch["validation_loss"]


def write_predictions(run: Run, split: str, predictions: Predictions) -> None:
    """Write predictions/SPLIT.npz; strings are stored as unicode arrays, nothing is pickled."""
    path = run.predictions(split)
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **dataclasses.asdict(predictions))


def read_predictions(run: Run, split: str) -> Predictions:
    """Read predictions/SPLIT.npz.

    Raises:
        UserError: the run has none, since it didn't end.
    """
    path = run.predictions(split)
    if not path.is_file():
        raise UserError(f"{path}: no such file; let the run end first (--resume goes on with it)")
    with np.load(path, allow_pickle=False) as arrays:
        names, classes = (tuple(arrays[key].tolist()) for key in ("names", "classes"))
        return Predictions(arrays["logits"], arrays["labels"], arrays["groups"], names, classes)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
