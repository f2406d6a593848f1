"""Read and write the folder of a sweep, which also holds the run folders of its models.

sweep.json       what was asked for: the model, its options, the grid, and the names of the run folders
diverged.json    of each model that diverged, at which step
table.csv        the models, the best on the validation images first
seeds.csv        of a sweep over seeds: mean and interval of the models that differ in nothing else
folds.csv        of cross-validation: the same over the folds
patients.csv     of models that segment: the scores of each test patient
figures/         the report and pictures
.lock            shared by the processes that work on the sweep; marks the folder as one of ours
"""

import contextlib
import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from jaxcnn.errors import UserError
from jaxcnn.runs.files import is_temporary, try_lock
from jaxcnn.runs.folder import Inside, Run
from jaxcnn.runs.json_files import read_json, write_json
from jaxcnn.runs.lock import lock_file, lock_run
from train.folder import check_same_options
from train.machine.processes import by_first


class _Asked(TypedDict):
    options: dict[str, Any]
    grid: dict[str, list[Any]]
    random: NotRequired[int | None]
    # Folders of these names are deleted by --overwrite.
    models: list[Annotated[str, msgspec.Meta(pattern=r"^(?!\.\.?$)[^/]+$")]]


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    """The addresses inside a sweep's folder; see above for what is there."""

    folder: Path

    asked = Inside("sweep.json")
    diverged = Inside("diverged.json")
    table = Inside("table.csv")
    seeds = Inside("seeds.csv")
    folds = Inside("folds.csv")
    patients = Inside("patients.csv")
    figures = Inside("figures")
    lock = Inside(".lock")
    diverged_lock = Inside(".diverged.lock")

    def run(self, name: str) -> Run:
        """The run folder of a model."""
        return Run(self.folder / name)


def check_sweep_folder(sweep: SweepFolder) -> None:
    """Raise a UserError if the folder is neither missing nor empty, nor holds a finished or unfinished sweep."""
    try:
        if not sweep.folder.exists() or sweep.asked.is_file():
            return
        names = {path.name for path in sweep.folder.iterdir()}
    except OSError as error:
        raise UserError(f"--sweep-dir {sweep.folder}: {error.strerror}; choose another") from error
    ours = {name for name in names if name == sweep.lock.name or is_temporary(name)}
    if names - ours:
        raise UserError(f"--sweep-dir {sweep.folder}: exists but is not a sweep; choose another")


@contextlib.contextmanager
def hold_sweep(sweep: SweepFolder, asked: Mapping[str, Any], *, overwrite: bool, resume: bool) -> Iterator[int]:
    """Begin a sweep, or with `resume` continue the one that is there, beside other processes that do the same.

    Yields:
        The lock, for `share` and `is_last`.

    Raises:
        UserError: see `create_or_resume`; or others work on the sweep, and it is not to be continued.
    """
    with contextlib.ExitStack() as held:

        def prepare() -> int:
            check_sweep_folder(sweep)
            lock = held.enter_context(lock_file(sweep.lock, waits=fcntl.LOCK_SH if resume else None))
            create_or_resume(sweep, asked, overwrite=overwrite, resume=resume)
            return lock

        yield by_first(prepare)


def share(lock: int) -> None:
    """Let other processes work on the sweep, too."""
    by_first(lambda: try_lock(lock, fcntl.LOCK_SH))


def is_last(sweep: SweepFolder, lock: int) -> bool:
    """Whether no other process works on the sweep any more; then none can, until this one shares it or ends."""

    def take() -> bool:
        if try_lock(lock) is False:
            # NFS keeps what was shared, by which two that end at once would keep each other away.
            try_lock(lock, fcntl.LOCK_UN)
            if try_lock(lock) is False:
                return False
        # What killed processes have left.
        for path in sweep.folder.glob(".*"):
            if is_temporary(path.name):
                path.unlink()
        return True

    return by_first(take)


def create_or_resume(sweep: SweepFolder, asked: Mapping[str, Any], *, overwrite: bool, resume: bool) -> None:
    """Begin a sweep, or with `resume` continue the one that is there; the caller has locked the folder.

    Raises:
        UserError: there is one, and neither is asked for; or it was asked for something else; or it can't be written;
            or a run that is to be replaced is in use.
    """
    try:
        if sweep.asked.is_file():
            before = read_json(sweep.asked, _Asked, way_out="restore it from a copy, or choose another folder")
            if resume:
                _check_same(sweep, asked, before)
                return
            if not overwrite:
                raise UserError(
                    f"--sweep-dir {sweep.folder}: holds a sweep; continue it with --resume, or replace it"
                    " with --overwrite"
                )
            # The list of what is to go goes last, so that a kill leaves a sweep that can be replaced again.
            _remove_runs([sweep.run(name) for name in before["models"]])
            shutil.rmtree(sweep.figures, ignore_errors=True)
            for path in (sweep.table, sweep.seeds, sweep.folds, sweep.patients, sweep.diverged):
                path.unlink(missing_ok=True)
        write_json(sweep.asked, asked)
    except OSError as error:
        way_out = "choose a folder that can be written"
        raise UserError(f"--sweep-dir {sweep.folder}: {error.strerror}; {way_out}") from error


def _remove_runs(runs: Sequence[Run]) -> None:
    """Remove run folders, all or, where another process works on one of them, none."""
    with contextlib.ExitStack() as held:
        there = [run for run in runs if run.folder.is_dir()]
        for run in there:
            held.enter_context(lock_run(run))
        for run in there:
            shutil.rmtree(run.folder, ignore_errors=True)


def _check_same(sweep: SweepFolder, asked: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    started = f"the sweep in {sweep.folder}"
    check_same_options(asked["options"], before["options"], started)
    same = json.loads(json.dumps(asked))
    for part, words in (("grid", _as_typed), ("random", str)):
        if same[part] != before[part]:
            raise UserError(
                f"--{part} {words(same[part])}: {started} has {words(before[part])}; "
                "resume with the options it was started with"
            )


def _as_typed(grid: Mapping[str, Sequence[Any]]) -> str:
    return " ".join(f"{field}={','.join(map(str, values))}" for field, values in grid.items())


def read_diverged(sweep: SweepFolder) -> dict[str, str]:
    """What happened to each model that diverged, by its name."""
    if not sweep.diverged.exists():
        return {}
    return read_json(sweep.diverged, dict[str, str], way_out="delete it to train the models that diverged again")


def write_diverged(sweep: SweepFolder, name: str, reason: str) -> None:
    """Note that a model diverged: what is trained again from the same state would do so again."""
    with lock_file(sweep.diverged_lock, waits=fcntl.LOCK_EX):
        write_json(sweep.diverged, read_diverged(sweep) | {name: reason})
