"""Collect the images that an audit compares: thumbnails from any source, with their names, labels and patients."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from jaxcnn.data.dataset import Dataset, joined
from jaxcnn.data.duplicates import SIDE, Thumbnails, make_thumbnails
from jaxcnn.data.files import LeftOut
from jaxcnn.data.labelled import read_images
from jaxcnn.data.layouts import open_labelled
from jaxcnn.data.load import is_prepared, load_dataset
from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class Collection:
    """Images in the order of their files or of their splits.

    Attributes:
        digests: SHA-256 of each.
        digests_of: "files" as they are published, or "pixels" where the files were written anew by preparing them.
        labels: class names.
        splits: split names; "all" where there is no split.
        sizes: (width, height) in pixels, before an image is made a square.
        broken: files that could not be read.
        patients: whose images they are, "" where that isn't known.
        left_out: files that are none of the images.
    """

    source: str
    thumbnails: Thumbnails
    digests: tuple[str, ...]
    digests_of: Literal["files", "pixels"]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    broken: tuple[LeftOut, ...]
    patients: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()


def read_collection(source: str) -> Collection:
    """Read a prepared data set, the phantom, or anything that `open_labelled` lists.

    Raises:
        UserError: it is none of these, is damaged, or holds no usable image.
    """
    if is_prepared(source):
        return _from_dataset(load_dataset(source))
    return _from_files(Path(source))


def _from_dataset(dataset: Dataset) -> Collection:
    images = joined(list(dataset.splits.values()))
    return Collection(
        source=dataset.source,
        thumbnails=make_thumbnails(images.images),
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images.images),
        digests_of="pixels",
        names=images.names,
        labels=tuple(dataset.classes[label] for label in images.labels),
        splits=tuple(name for name, split in dataset.splits.items() for _ in split.names),
        sizes=((images.images.shape[2], images.images.shape[1]),) * len(images),
        broken=(),
        patients=images.patients or ("",) * len(images),
    )


def _from_files(path: Path) -> Collection:
    with open_labelled(path) as listing:
        images, broken = read_images(listing, SIDE)
    if not images:
        raise UserError(f"{path}: no image can be read; the first, {broken[0].name}, {broken[0].reason}")
    return Collection(
        source=str(path),
        thumbnails=np.stack([image.pixels for image in images]),
        digests=tuple(image.digest for image in images),
        digests_of="files",
        names=tuple(image.name for image in images),
        labels=tuple(image.label for image in images),
        splits=tuple(image.split or "all" for image in images),
        sizes=tuple(image.size for image in images),
        broken=tuple(broken),
        patients=tuple(image.patient for image in images),
        left_out=listing.left_out,
    )
