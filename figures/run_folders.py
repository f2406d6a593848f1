"""The runs in the folders that a command takes: run folders, and sweep folders, which stand for all their runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from figures.short_names import short_names
from jaxcnn.cli import needed
from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, open_run, open_sweep

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP|RUN")]
"""The argument of a command that takes one folder."""

Folders = Annotated[tuple[Path, ...], tyro.conf.Positional, needed("SWEEP|RUN [SWEEP|RUN ...]")]
"""The argument of a command that takes several folders."""


def open_folders(folders: Sequence[Path]) -> dict[str, Run]:
    """The runs in the folders by their short names, each once, in the order of the folders.

    Raises:
        UserError: no folder is given, or one is neither a run nor a sweep.
    """
    if not folders:
        raise UserError("SWEEP|RUN: name at least one run folder or sweep")
    runs = {run.folder.resolve(): run for folder in folders for run in open_folder(folder)}
    return dict(zip(short_names(list(runs)), runs.values(), strict=True))


def open_folder(folder: Path) -> tuple[Run, ...]:
    """The run in the folder, or the runs of the sweep.

    Raises:
        UserError: the folder is neither a run nor a sweep.
    """
    one = Run(folder).kind is not None or not folder.is_dir()
    return (open_run(folder),) if one else open_sweep(folder)
