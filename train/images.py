"""Load the images of a run, divide them into splits, frame them, and describe them."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from jaxcnn.data.batch import Examples, in_batches
from jaxcnn.data.dataset import Dataset, Split, evenly_spread
from jaxcnn.data.load import load_dataset
from jaxcnn.data.normalization import BY_VOLUME, standardize_volumes
from jaxcnn.data.preprocessing import Preprocessing, frame, frame_masks
from jaxcnn.data.protocol import Fold, Leakage, Protocol, describe, partition
from jaxcnn.errors import UserError
from jaxcnn.evaluation.masks import patients_of
from jaxcnn.inference.tta import views_of
from train.machine.progress import report
from train.options import ImageOptions, TrainOptions

_BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set and its description.

    Attributes:
        dataset: divided into train, validation and test; only the first two decide anything. Where the normalisation is
            of whole volumes, the images have had it.
        leakage: near-duplicates across Training and Testing.
        description: the content of data.json.
    """

    dataset: Dataset
    leakage: Leakage
    description: Mapping[str, Any]


def load_images(options: ImageOptions, *, masks: bool = False) -> Images:
    """Load the images that the options name, with their masks if these are what is learnt.

    Raises:
        UserError: there are none, or too few of a class to hold any out.
    """
    if options.folds is not None and options.fold is None:
        way_out = "give it, or train all folds with a sweep" if isinstance(options, TrainOptions) else "give it"
        raise UserError(f"--folds {options.folds}: needs --fold, the fold to test on; {way_out}")
    return divide_images(load_dataset(options.data, options.max_images, masks=masks), options)


def divide_images(loaded: Dataset, options: ImageOptions) -> Images:
    """Divide a data set into splits according to the options.

    Raises:
        UserError: it has too few images of a class to hold any out.
    """
    fold = Fold(options.fold, options.folds) if options.fold and options.folds else None
    try:
        dataset, leakage = partition(
            loaded,
            options.protocol,
            options.validation_fraction,
            seed=options.split_seed,
            test_fraction=options.test_fraction,
            fold=fold,
        )
    except UserError:
        raise
    except ValueError as error:
        held_out = [split for split in ("validation", "test") if split not in loaded.splits]
        shares = {f"--{split}-fraction": getattr(options, f"{split}_fraction") for split in held_out}
        largest = max(shares.items(), key=lambda item: item[1], default=("--data", options.data))
        option, share = ("--folds", fold.count) if fold else largest
        raise UserError(f"{option} {share}: {error}; use more images") from error
    origin = f"fold {fold.number} of {fold.count}" if fold else "published" if "test" in loaded.splits else "held out"
    whole, empty = dataset, options.empty_slices if isinstance(options, TrainOptions) else 1
    dataset = _without_empty_slices(whole, empty)
    description = describe(dataset, leakage, options.protocol) | {"test_images": origin}
    if isinstance(options, TrainOptions) and options.normalization in BY_VOLUME:
        # Of whole volumes, as in use: those without their empty slices have other means and deviations.
        dataset = _without_empty_slices(_standardized(whole), empty)
    return Images(dataset, leakage, description)


def _without_empty_slices(dataset: Dataset, share: float) -> Dataset:
    """Keep this share of the training slices whose masks are empty, evenly spread."""
    if share == 1:
        return dataset
    train = dataset.splits["train"]
    empty, marked = np.flatnonzero(train.labels == 0), np.flatnonzero(train.labels)
    kept = evenly_spread(empty, round(share * len(empty)))
    chosen = train.take(np.sort(np.concatenate([marked, kept])))
    return dataclasses.replace(dataset, splits={**dataset.splits, "train": chosen})


def _standardized(dataset: Dataset) -> Dataset:
    """Normalise the images of each patient together."""
    splits = {
        name: dataclasses.replace(split, images=standardize_volumes(split.images, patients_of(split)))
        for name, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def report_images(images: Images, protocol: Protocol) -> None:
    """Print the number of images of each split, of patients, and of near-duplicates across the splits."""
    splits, origin = images.dataset.splits, images.description["test_images"]
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    report(f"data       {images.dataset.source}: {counts}")
    if origin != "published":
        report(f"test       {'held out of all images' if origin == 'held out' else origin}")
    if patients := images.description.get("patients"):
        report(f"patients   {', '.join(f'{count} {name}' for name, count in patients.items())}")
    leakage, tested = images.leakage, len(splits["test"])
    if leakage.groups:
        or_patients = f", or show one of {leakage.patients} patients who are there too" if leakage.patients else ""
        found = f"{leakage.test} of {tested} test images have near-duplicates among {leakage.train} training images"
        found += or_patients
        if protocol == "leak-free":
            report(f"copies     {found}, which are left out")
        else:
            meaning = "their scores measure memorisation (leave the copies out with --protocol leak-free)"
            report(f"copies     {found}; {meaning}")


def frame_splits(options: TrainOptions, dataset: Dataset) -> dict[str, Examples]:
    """Crop and resize the images of each split once, in the views used for evaluation, and the masks if there are any.

    The first view is the one that is trained on.
    """

    def framed(split: Split) -> Examples:
        views = tuple(_frame_all(view, options.preprocessing) for view in views_of(split.images, options.tta))
        if split.masks is None:
            return Examples(views, split.labels)
        return Examples(views, np.asarray(frame_masks(split.masks, options.preprocessing, len(dataset.classes))))

    return {name: framed(split) for name, split in dataset.splits.items()}


def _frame_all(
    images: UInt8[np.ndarray, "n height width channel"], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "n rows columns channel"]:
    """`frame`, by one compiled program for batches of one size; the last one is filled up with black."""
    if preprocessing.keeps_frame(images.shape[1:]):
        return images
    return in_batches(_compiled_frame(preprocessing), images, _BATCH_SIZE)


@functools.cache
def _compiled_frame(preprocessing: Preprocessing) -> jax.stages.Wrapped:
    return jax.jit(lambda batch: frame(batch, preprocessing))
