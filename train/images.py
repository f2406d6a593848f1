"""The images that a run is a function of: loaded, parted, and described in the lines that a run begins with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxcnn.data.dataset import Dataset
from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import Partition, describe, partition
from jaxcnn.errors import UserError
from train.config import ImagesConfig
from train.progress import say


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set, how it is parted, and what data.json says of that."""

    dataset: Dataset
    parts: Partition
    description: Mapping[str, Any]


def load_images(config: ImagesConfig) -> Images:
    """The images that the configuration names.

    Raises:
        UserError: there are none, or too few of a class to hold any out.
    """
    dataset = load_dataset(config.data, config.max_images)
    try:
        parts = partition(dataset, config.protocol, config.validation_fraction, seed=config.split_seed)
    except ValueError as error:
        raise UserError(f"--validation-fraction {config.validation_fraction}: {error}; use more images") from error
    return Images(dataset, parts, describe(dataset, parts))


def say_images(images: Images) -> None:
    """Tell how many images there are of each split, and what a reader must know of them."""
    counts = ", ".join(f"{len(split)} {name}" for name, split in images.parts.splits.items())
    say(f"data       {images.dataset.source}: {counts}")
    if images.parts.leakage.groups:
        say(f"copies     {_leakage_line(images.parts)}")


def _leakage_line(parts: Partition) -> str:
    """What a reader must know of a data set with near-duplicates across its split."""
    leakage, tested = parts.leakage, len(parts.splits["test"])
    found = f"{leakage.test} of {tested} test images have near-duplicates among {leakage.train} training images"
    if parts.protocol == "leak-free":
        return f"{found}, which are left out"
    return f"{found}; scores on them show memory (--protocol leak-free leaves those out)"
