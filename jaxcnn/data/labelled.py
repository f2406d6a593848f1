"""Read the images of a folder, a zip or a table of labels, and resize them to squares, to prepare, audit or score."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from jaxcnn.data.dataset import SPLITS, Dataset, Split
from jaxcnn.data.files import FileError, LeftOut, shown
from jaxcnn.data.image import to_square
from jaxcnn.data.layouts import SPLIT_NAMES, LabelledFile, Listing
from jaxcnn.data.readers.table import read_scan
from jaxcnn.errors import UserError

# A data set is used from memory, and TFDS needs TensorFlow to write a split of more than 1,048 MB.
MAX_MEGABYTES = 1000


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image with its label, split and patient.

    Attributes:
        name: the path of its file; of a file with several slices followed by "#" and the number of this one.
        split: as in `LabelledFile`.
        patient: whose image it is; "" where that isn't known.
        pixels: of the square.
        size: width and height before.
        digest: SHA-256 of its file (and its number in there).
    """

    name: str
    label: str
    split: str
    patient: str
    pixels: UInt8[np.ndarray, "size size 1"]
    size: tuple[int, int]
    digest: str


def read_images(listing: Listing, size: int) -> tuple[list[LabelledImage], list[LeftOut]]:
    """Read every file, one on each core, with a progress bar on a terminal, and list those that can't be used.

    Raises:
        UserError: a format needs a package that is not installed, or the images wouldn't fit into memory.
    """
    found: list[LabelledImage] = []
    broken: list[LeftOut] = []
    count = len(listing.files)
    _check_total_size(count, size)
    threads = ThreadPoolExecutor(os.cpu_count())
    with contextlib.ExitStack() as stack:
        # Each reader sets Python's filters of warnings, which all threads share, and puts back what it has found.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(threads.shutdown, cancel_futures=True)
        reading = threads.map(functools.partial(_read, size=size), listing.files)
        for images in tqdm(reading, total=count, unit=" files", disable=None):  # None: on a terminal only.
            if isinstance(images, LeftOut):
                broken.append(images)
                continue
            count += len(images) - 1
            _check_total_size(count, size)
            found += images
    return found, broken


def _read(file: LabelledFile, size: int) -> list[LabelledImage] | LeftOut:
    try:
        encoded = file.file.content(file.reader.most_bytes)
        scan = read_scan(encoded, file.reader)
    except FileError as error:
        return LeftOut(file.name, str(error))
    digest = hashlib.sha256(encoded).hexdigest()
    # The slices of a volume are of one patient, whoever that is.
    patient = file.patient or scan.patient or (file.name if len(scan.slices) > 1 else "")
    return [
        LabelledImage(
            name=f"{file.name}#{of.part}" if of.part else file.name,
            label=file.label or scan.label,
            split=file.split,
            patient=shown(patient),
            pixels=to_square(of.pixels, size),
            size=(of.pixels.shape[1], of.pixels.shape[0]),
            digest=f"{digest}#{of.part}" if of.part else digest,
        )
        for of in scan.slices
    ]


def _check_total_size(count: int, size: int) -> None:
    megabytes = count * size**2 // 10**6
    if megabytes > MAX_MEGABYTES:
        raise UserError(
            f"{count} images of {size}x{size} pixels take {megabytes} MB, more than the {MAX_MEGABYTES} MB that fit in"
            " memory; choose a smaller size"
        )


def as_dataset(source: Path, images: Sequence[LabelledImage]) -> Dataset:
    """Arrange the images by split, and in each split by class and then in their order.

    The classes are in natural order: by letter, whatever its case, and by number where names hold some. Images without
    a split are training images.
    """
    classes = tuple(sorted({image.label for image in images}, key=natural_order))
    label_of = {label: place for place, label in enumerate(classes)}
    ordered = sorted(images, key=lambda image: label_of[image.label])
    splits = {}
    for name in SPLITS:
        members = [image for image in ordered if SPLIT_NAMES.get(image.split.lower(), "train") == name]
        if members:
            patients = tuple(image.patient for image in members)
            splits[name] = Split(
                images=np.stack([image.pixels for image in members]),
                labels=np.array([label_of[image.label] for image in members], np.int32),
                names=tuple(image.name for image in members),
                patients=patients if any(patients) else None,
            )
    return Dataset(str(source), classes, splits)


def natural_order(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A key to sort by: grade2 comes before grade10, and B after a."""
    parts = re.findall(r"\d+|\D+", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part.casefold()) for part in parts], name


def tell_left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """Write one line per file; if more than three share a reason, write one line with ten names."""
    by_reason: dict[str, list[str]] = {}
    for one in left_out:
        by_reason.setdefault(one.reason, []).append(one.name)
    return [line for reason, names in by_reason.items() for line in _tell(reason, names)]


def _tell(reason: str, names: Sequence[str]) -> list[str]:
    if len(names) <= 3:
        return [f"left out: {name} {reason}" for name in names]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return [f"left out: {len(names)} files, each of which {reason}: {', '.join(names[:10])}{more}"]
