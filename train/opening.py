"""The folder that a run begins in, or goes on in if it has what it had then."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, create_run, read_config, read_data, read_environment, remove_leftovers
from jaxcnn.runs.lock import lock_run
from train.config import TrainConfig, as_json, default_options
from train.devices.distributed import by_first
from train.devices.placement import Placement
from train.environment import describe_environment, describe_placement, differences
from train.images import Images
from train.progress import say

# Options that may change where a run goes on: how often it saves, and where its images lie, which fingerprints tell.
MAY_CHANGE = ("checkpoint_every", "data")


@contextlib.contextmanager
def opened(
    run: Run, config: TrainConfig, images: Images, placement: Placement, *, overwrite: bool, resume: bool
) -> Iterator[None]:
    """Hold the run's folder: a new one, or with `resume` the one that is there.

    Raises:
        UserError: the run that is there has another configuration or other images, or is in use, or is to be kept.
    """
    with contextlib.ExitStack() as held:

        def prepare() -> None:
            held.enter_context(lock_run(run))
            environment = describe_environment() | describe_placement(placement)
            if resume and run.config.is_file():
                check_same_run(run, config, images)
                remove_leftovers(run)
                if changed := differences(read_environment(run), environment):
                    say(f"note       {changed}: the results may differ, if only by rounding")
            else:
                create_run(run.folder, as_json(config), images.description, environment, overwrite=overwrite)

        by_first(prepare)
        say(f"run        {run.folder}")
        yield


def check_same_run(run: Run, config: TrainConfig, images: Images) -> None:
    """See that the run in a folder has this configuration and these images.

    Raises:
        UserError: it has others.
    """
    check_same_options(as_json(config), read_config(run), f"the run in {run.folder}")
    before = read_data(run)["fingerprints"]
    for split, fingerprint in images.description["fingerprints"].items():
        if fingerprint != before[split]:
            raise UserError(
                f"--data {config.data}: the {split} images have the fingerprint {fingerprint[:12]}, those of the run"
                f" in {run.folder} have {before[split][:12]}; resume with the images it was started with"
            )


def check_same_options(now: Mapping[str, Any], before: Mapping[str, Any], started: str) -> None:
    """See that something goes on with the options that it was started with, but for those of `MAY_CHANGE`.

    Raises:
        UserError: it has others.
    """
    model, other = now["model"], before.get("model", before.get("baseline"))
    if model != other:
        raise UserError(f"{model}: {started} is of {other}; resume with that, or choose another folder")
    # An option that is younger than the run had the value that leaves everything as it was.
    before = default_options(model) | dict(before)
    for field, value in now.items():
        if field not in MAY_CHANGE and before[field] != value:
            raise UserError(
                f"--{field.replace('_', '-')} {value}: {started} has {before[field]}; "
                "resume with the options it was started with"
            )
