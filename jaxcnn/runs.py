"""The run folder: written by training, read by the figures.

config.json         what the run is a function of, beside its images
data.json           which images those are: protocol, counts, fingerprints
environment.json    versions, device, git revision
metrics.jsonl       one flat line an epoch
predictions/        SPLIT.npz: logits, labels, names
checkpoints/        the last and the best
figures/            PNG files
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from jaxcnn.atomic import whole_file
from jaxcnn.cli import UserError
from jaxcnn.metrics import confusion_matrix


@dataclasses.dataclass(frozen=True)
class Run:
    """The addresses inside a run folder."""

    folder: Path

    @property
    def name(self) -> str:
        """What a figure calls the run."""
        return self.folder.name

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
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.folder / "figures"

    def predictions(self, split: str) -> Path:
        """NPZ: the logits for every image of a split."""
        return self.folder / "predictions" / f"{split}.npz"


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The logits of a model for every image of a split, in the split's order."""

    logits: Float32[np.ndarray, "n classes"]
    labels: Int32[np.ndarray, " n"]
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def confusion(self) -> np.ndarray:
        """Counts: rows are true classes, columns predicted ones."""
        return confusion_matrix(self.labels, self.logits.argmax(axis=1), len(self.classes))


def create_run(
    folder: Path,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    overwrite: bool,
) -> Run:
    """Make a new run folder.

    Raises:
        UserError: the folder exists and `overwrite` is off, or it exists and is no run folder.
    """
    run = Run(folder)
    if folder.exists():
        if not run.config.is_file():
            raise UserError(f"--run-dir {folder}: exists and is no run folder; choose another")
        if not overwrite:
            raise UserError(f"--run-dir {folder}: holds a run; go on with --resume, replace it with --overwrite")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--run-dir {folder}: {error.strerror}; choose a folder that can be written") from error
    _write_json(run.environment, environment)
    _write_json(run.data, data)
    _write_json(run.config, config)
    return run


def open_run(folder: Path) -> Run:
    """An existing run folder.

    Raises:
        UserError: there is none.
    """
    run = Run(folder)
    if not run.config.is_file():
        raise UserError(f"{folder}: no run folder (it has no config.json); python -m train simplecnn makes one")
    return run


def read_config(run: Run) -> dict[str, Any]:
    """The configuration as it was written."""
    return json.loads(run.config.read_text())


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
        return Predictions(
            arrays["logits"], arrays["labels"], tuple(arrays["names"].tolist()), tuple(arrays["classes"].tolist())
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
