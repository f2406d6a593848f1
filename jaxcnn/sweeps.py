"""The folder of a sweep: one run folder a model, as direct subfolders."""

from pathlib import Path

from jaxcnn.cli import UserError
from jaxcnn.runs import Run


def open_sweep(folder: Path) -> tuple[Run, ...]:
    """The runs in a sweep's folder, sorted by name.

    Raises:
        UserError: there is none.
    """
    runs = tuple(run for run in map(Run, sorted(folder.glob("*/"))) if run.config.is_file())
    if not runs:
        raise UserError(f"{folder}: no sweep (no folder in it has a config.json); python -m train sweep makes one")
    return runs
