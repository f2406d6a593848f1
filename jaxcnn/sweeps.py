"""The folder of a sweep: one run folder a model, as direct subfolders."""

from pathlib import Path

from jaxcnn.errors import UserError
from jaxcnn.runs import Run


def open_sweep(folder: Path) -> tuple[Run, ...]:
    """The runs in a sweep's folder, sorted by name.

    Raises:
        UserError: there is none.
    """
    runs = tuple(Run(config.parent) for config in sorted(folder.glob("*/config.json")))
    if not runs:
        raise UserError(f"{folder}: no run folder in it; python -m train sweep makes some")
    return runs
