"""Make a new run folder, or open the one to resume if its options and images are the same."""

import contextlib
import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, create_run, read_config, read_data, read_environment, remove_leftovers
from jaxcnn.runs.json_files import write_json
from jaxcnn.runs.lock import lock_run
from train.images import Images
from train.machine.devices import Placement, pick_devices
from train.machine.processes import by_first
from train.machine.progress import report
from train.options import Config, make_config

# Options that may change when a run is resumed: how often it saves, what it writes beside its results, and where its
# images lie, since their fingerprints are compared.
MAY_CHANGE = ("checkpoint_every", "data", "tensorboard")

_PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# Those that decide the results: Grain draws the order of the images.
_COMPUTING = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")


def check_intention(run_dir: Path | str | None, *, overwrite: bool, resume: bool) -> None:
    """Raise a UserError if --overwrite and --resume are given together, or the folder to resume isn't named."""
    if overwrite and resume:
        raise UserError("--overwrite and --resume exclude each other: give only one of them")
    if resume and run_dir is None:
        raise UserError("--resume needs --run-dir: name the folder of the run to resume")


def new_folder(name: str) -> Path:
    """Make runs/NAME-DATE-TIME; runs that start within the same second get different folders.

    Raises:
        UserError: there are several processes, which must all be told the folder; or it can't be made.
    """
    if jax.process_count() > 1:
        raise UserError("--run-dir is missing: several processes need the same folder; name it")
    stem = Path("runs") / time.strftime(f"{name}-%Y%m%d-%H%M%S")
    number, folder = 1, stem
    try:
        while True:
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                number += 1
                folder = stem.with_name(f"{stem.name}-{number}")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; name another folder with --run-dir") from error


@contextlib.contextmanager
def hold_folder(
    run: Run, config: Config, images: Images, placement: Placement, *, overwrite: bool, resume: bool
) -> Iterator[None]:
    """Lock the run's folder: make it, or with `resume` check the run in it.

    Raises:
        UserError: the run in it has other options or images, or is in use, or is to be kept.
    """
    with contextlib.ExitStack() as held:

        def prepare() -> None:
            held.enter_context(lock_run(run))
            environment = describe_environment() | describe_placement(placement)
            if resume and run.config.is_file():
                check_same_run(run, config, images)
                remove_leftovers(run)
                note_changes(run, config, images)
                if changed := differences(read_environment(run), environment):
                    report(f"note       {changed}: the results may differ, if only by rounding")
            else:
                create_run(run.folder, config.to_json(), images.description, environment, overwrite=overwrite)

        by_first(prepare)
        report(f"run        {run.folder}")
        yield


def check_same_run(run: Run, config: Config, images: Images) -> None:
    """Raise a UserError if the run in a folder has another configuration or other images than these."""
    check_same_options(config.to_json(), read_config(run), f"the run in {run.folder}")
    before = read_data(run)["fingerprints"]
    for split, fingerprint in images.description["fingerprints"].items():
        if fingerprint != before[split]:
            raise UserError(
                f"--data {config.training.data}: the {split} images have the fingerprint {fingerprint[:12]}, but those"
                f" of the run in {run.folder} have {before[split][:12]}; resume with the images it was started with"
            )


def note_changes(run: Run, config: Config, images: Images) -> None:
    """Write down what may change when a run is resumed, for those who look for its images; the caller holds its lock.

    Raises:
        UserError: it can't be written.
    """
    now = {field: value for field, value in config.to_json().items() if field in MAY_CHANGE}
    source = {"source": images.description["source"]}
    for path, before, changed in ((run.data, read_data(run), source), (run.config, read_config(run), now)):
        if before | changed != before:
            try:
                write_json(path, before | changed)
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}; choose a folder that can be written") from error


def check_same_options(now: Mapping[str, Any], before: Mapping[str, Any], started: str) -> None:
    """Raise a UserError if a run or sweep is resumed with other options than before, except those in `MAY_CHANGE`."""
    model, other = now["model"], before.get("model", before.get("baseline"))
    if model != other:
        raise UserError(f"{model}: {started} is a run of {other}; resume that, or choose another folder")
    # An option that is younger than the run had the value that leaves everything as it was.
    before = make_config(model).to_json() | dict(before)
    # Before there was a table of crops, the only one was on or off.
    before["crop"] = {False: "none", True: "head"}.get(before["crop"], before["crop"])
    for field, value in now.items():
        if field not in MAY_CHANGE and before[field] != value:
            raise UserError(
                f"--{field.replace('_', '-')} {value}: {started} has {before[field]}; "
                "resume with the options it was started with"
            )


def describe_environment(more_packages: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, devices and the git revision of the code (None outside a checkout): the content of environment.json."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in (*_PACKAGES, *more_packages)},
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "git_revision": _git_revision(),
    }


def describe_placement(placement: Placement) -> dict[str, Any]:
    """The devices that a run takes of those that there are, and how."""
    names = ("parallel", "epoch_on_device")
    return {"devices": len(pick_devices(placement)), **{name: getattr(placement, name) for name in names}}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What of two environments lets the same run come to other bits, in words; empty where nothing does.

    What an older version did not write down is taken for the same.
    """
    packages = before["packages"]
    pairs = [(name, packages.get(name, now["packages"][name]), now["packages"][name]) for name in _COMPUTING]
    names = ("device_kind", "devices", "parallel", "epoch_on_device", "process_count", "git_revision")
    pairs += [(name.replace("_", " "), before.get(name, now[name]), now[name]) for name in names]
    return ", ".join(f"{name} was {old}, is {new}" for name, old, new in pairs if old != new)


def _git_revision() -> str | None:
    """The commit of the checkout that this file is a part of, with a + where tracked files differ from it."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    # An environment may lie inside the checkout of another project.
    tracked = [*git, "ls-files", "--error-unmatch", here.name]
    describe = [*git, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        subprocess.run(tracked, capture_output=True, check=True)
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
