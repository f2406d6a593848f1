"""Prepare the images of a folder, a zip or a table as a data set for training, written completely or not at all."""

import contextlib
import dataclasses
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jaxcnn.data.conflicts import Conflict, conflicts, without
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.files import LeftOut
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.labelled import LabelledImage, as_dataset, read_images
from jaxcnn.data.labelled_scans import VERSION, BrainTumorMri, LabelledScans
from jaxcnn.data.layouts import SPLIT_NAMES, Listing, open_labelled
from jaxcnn.data.load import load_dataset
from jaxcnn.data.readers.scan import MIN_SIDE
from jaxcnn.errors import UserError
from jaxcnn.runs.files import replace_folder, temporary_neighbour

# More are no classes, but patients or files that were taken for some.
MOST_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set that was written.

    Attributes:
        folder: where it is.
        dataset: what was read back from there.
        layout: how the images were arranged.
        left_out: the files (and images) that it does without.
    """

    folder: Path
    dataset: Dataset
    layout: str
    left_out: tuple[LeftOut, ...]


class ConflictError(UserError):
    """Copies of one image have different labels; `found` are the pairs."""

    def __init__(self, message: str, found: Sequence[Conflict]) -> None:
        super().__init__(message)
        self.found = tuple(found)


def prepare(
    source: Path,
    out: Path,
    *,
    size: int = 128,
    skip_broken: bool = False,
    skip_conflicts: bool = False,
    overwrite: bool = False,
) -> Prepared:
    """Write labelled images as a TFDS data set to NAME/SIZExSIZE/VERSION under `out`.

    NAME is brain_tumor_mri for images that are arranged as the public Kaggle archive, and labelled_scans for others.

    Args:
        source: a folder, a zip or a table of labels; see `jaxcnn.data.layouts`.
        out: a TFDS data folder, which may hold other data sets and sizes.
        size: side of the images, in pixels.
        skip_broken: leave broken files out, instead of refusing the whole.
        skip_conflicts: the same for copies with different labels.
        overwrite: replace what was prepared with this size before.

    Raises:
        ConflictError: copies of one image have different labels.
        UserError: the images are no good, or `out` can't be written. Nothing is written then.
    """
    if size < MIN_SIDE:
        raise UserError(f"--size {size}: must be at least {MIN_SIDE} pixels")
    with open_labelled(source) as listing:
        builder = BrainTumorMri if _is_archive(listing) else LabelledScans
        target = out / builder.name / f"{size}x{size}" / VERSION
        if target.exists() and not overwrite:
            raise UserError(f"{target}: already exists; replace it with --overwrite")
        images, broken = read_images(listing, size)  # All, so that one pass finds every broken file.
    if broken and not skip_broken:
        first, more = f"{source}: {broken[0].name} {broken[0].reason}", len(broken) - 1
        if not more:
            raise UserError(f"{first}; leave it out with --skip-broken")
        raise UserError(
            f"{first}, and {more} more files are broken; leave them out with --skip-broken, which lists them"
        )
    _check_left(source, listing, images)
    dataset = as_dataset(source, images)
    _check_classes(source, dataset)
    left_out = [*listing.left_out, *broken]
    # The archive stays as it is published; what is wrong with it is told by the audit.
    if builder is LabelledScans:
        dataset, conflicting = _without_conflicts(source, dataset, skip=skip_conflicts)
        left_out += conflicting
    written = _write(builder, dataset, target, out)
    return Prepared(target, written, listing.layout, tuple(left_out))


def _is_archive(listing: Listing) -> bool:
    """Whether the images are arranged as those of the Kaggle archive, which has a data set of its own."""
    splits, labels = {file.split for file in listing.files}, {file.label for file in listing.files}
    arranged = listing.layout == "SPLIT/CLASS/image" and splits == {"Training", "Testing"} and labels == set(CLASSES)
    return arranged and not any(file.patient or file.reader.volumes for file in listing.files)


def _check_left(source: Path, listing: Listing, images: Sequence[LabelledImage]) -> None:
    """Check that no class of a split consists of broken files alone."""
    usable = {(image.split, image.label) for image in images}
    for file in listing.files:
        if file.label and (file.split, file.label) not in usable:
            split = SPLIT_NAMES.get(file.split.lower(), "train")
            raise UserError(f"{source}: no usable image of {file.label} is left in the {split} split; add some")
    if not images:
        raise UserError(f"{source}: no usable image is left; add some")


def _check_classes(source: Path, dataset: Dataset) -> None:
    classes = dataset.classes
    if len(classes) < 2:
        raise UserError(f"{source}: all images are of one class, {classes[0]}; give a folder of two or more")
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"{source}: has {len(classes)} classes, such as {classes[0]} and {classes[1]}; give at most {MOST_CLASSES},"
            " as [SPLIT/]CLASS/image or [SPLIT/]CLASS/PATIENT/image"
        )
    counts = Counter(int(label) for split in dataset.splits.values() for label in split.labels)
    for split in dataset.splits.values():
        for name, label in zip(split.names, split.labels.tolist(), strict=True):
            if counts[label] == 1:
                raise UserError(
                    f"{source}: {name} is the only image of the class {classes[label]}; correct its label, add others,"
                    " or leave it out"
                )


def _without_conflicts(source: Path, dataset: Dataset, *, skip: bool) -> tuple[Dataset, list[LeftOut]]:
    found = conflicts(dataset)
    if not found:
        return dataset, []
    if not skip:
        (first, second), labels = found[0].names, found[0].labels
        count = f", and {len(found) - 1} more pairs of copies have different labels" if len(found) > 1 else ""
        raise ConflictError(
            f"{source}: {first} is a copy of {second}, and one is labelled {labels[0]}, the other {labels[1]}{count};"
            " correct the labels, or leave these images out with --skip-conflicts",
            found,
        )
    partner = {name: other for of in found for name, other in (of.names, of.names[::-1])}
    kept = without(dataset, set(partner))
    left = {dataset.classes[label] for split in kept.splits.values() for label in np.unique(split.labels)}
    if missing := [name for name in dataset.classes if name not in left]:
        raise UserError(f"{source}: no image of {missing[0]} is left without conflicting copies; correct the labels")
    return kept, [LeftOut(name, f"is a copy of {other}, which has another label") for name, other in partner.items()]


def _write(builder: type[LabelledScans], dataset: Dataset, target: Path, out: Path) -> Dataset:
    """Write the data set and give what is read back."""
    try:
        # A neighbour is on the same file system, so that renaming is all that is left to do in the end.
        neighbour = next(folder for folder in target.absolute().parents if folder.exists())
        with temporary_neighbour(neighbour / target.name) as temporary:
            with _quiet_tfds():
                building = builder(dataset=dataset, data_dir=temporary)
                building.download_and_prepare()
            written = load_dataset(building.data_dir)
            replace_folder(target, Path(building.data_dir), replaced=temporary / "replaced")
    except OSError as error:
        # TFDS puts its own words before those of array-record; the cause has them alone.
        reason = error.strerror or error.__cause__ or error
        raise UserError(f"{out}: can't be written: {reason}; make room or choose another --out") from error
    return dataclasses.replace(written, source=str(target))


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keep TFDS from printing paths that are about to change, from drawing its bars, and from its warnings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
