"""Load a data set that the user names: the phantom, or a folder that `python -m jaxcnn.data prepare` wrote."""

import dataclasses
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from jaxcnn.data.dataset import SPLITS, Dataset, Split
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.phantom import phantom_images, phantom_masks
from jaxcnn.data.slices import BINARY, Slices, load_slices
from jaxcnn.errors import UserError

# TFDS makes a folder for the data set, in that one for its size, and in that one for its version.
_INFO = "*/*/*/dataset_info.json"
_FEATURES = {"image", "label", "file_name"}

PHANTOM_SEED = 0
PHANTOM_TRAIN_IMAGES = 448
PHANTOM_TEST_IMAGES = 160
# The test images are other heads than the training images, however many of those there will ever be.
PHANTOM_TEST_OFFSET = 1_000_000


def load_dataset(source: str, max_images: int | None = None, *, masks: bool = False) -> Dataset:
    """Load all splits into memory.

    Args:
        source: "phantom", or a prepared folder: the one that was given to prepare, or the one inside it that holds
            dataset_info.json. To segment, "phantom", or what `jaxcnn.data.slices.load_slices` takes.
        max_images: the most images of a split to keep, evenly spread over its classes; None keeps all.
        masks: load them as well, to segment.

    Raises:
        UserError: the folder holds no data set, more than one, or a damaged one.
        ValueError: `max_images` is not positive.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}")
    most = max_images or sys.maxsize
    if source == "phantom":
        # Its labels take turns, so the first images are spread evenly over the classes; the others need not be drawn.
        train = _phantom_split("train", 0, min(PHANTOM_TRAIN_IMAGES, most), masks=masks)
        test = _phantom_split("test", PHANTOM_TEST_OFFSET, min(PHANTOM_TEST_IMAGES, most), masks=masks)
        classes = BINARY if masks else CLASSES
        return Dataset(source, classes, {"train": train, "test": test})
    if masks:
        dataset = _as_segmentation(source, load_slices(Path(source)))
    else:
        dataset = _read_prepared(_find_prepared(Path(source)))
    return dataclasses.replace(dataset, splits={name: split.spread(most) for name, split in dataset.splits.items()})


def _phantom_split(name: str, offset: int, count: int, *, masks: bool) -> Split:
    places, names = offset + np.arange(count), tuple(f"phantom/{name}/{i}" for i in range(count))
    images, labels = phantom_images(PHANTOM_SEED, places)
    if not masks:
        return Split(images, labels, names)
    drawn = phantom_masks(PHANTOM_SEED, places)
    return Split(images, _largest_class(drawn), names, masks=drawn)


def _as_segmentation(source: str, slices: Slices) -> Dataset:
    """The slices as a data set without splits; refuse those without masks, or with empty ones alone."""
    if slices.masks is None:
        raise UserError(f"{source}: has no masks; give images with masks, to train on")
    if not slices.masks.any():
        raise UserError(f"{source}: all masks are empty; give some that mark a region")
    split = Split(slices.images, _largest_class(slices.masks), slices.names, slices.patients, slices.masks)
    return Dataset(source, slices.classes, {"train": split})


def _largest_class(masks: UInt8[np.ndarray, "n height width"]) -> Int32[np.ndarray, " n"]:
    return masks.max(axis=(1, 2)).astype(np.int32)


def is_prepared(source: str) -> bool:
    """Tell whether `load_dataset` takes it: the phantom, or a folder that `prepare` wrote."""
    return source == "phantom" or bool(_data_sets(Path(source)))


def _data_sets(folder: Path) -> list[Path]:
    """The folder itself, or those inside it that hold a data set; of several versions of one, the newest."""
    if (folder / "dataset_info.json").is_file():
        return [folder]
    found = sorted(info.parent for info in folder.glob(_INFO))
    return list({version.parent: version for version in found}.values())


def _find_prepared(folder: Path) -> Path:
    try:
        exists, found = folder.exists(), _data_sets(folder)
    except OSError as error:
        raise UserError(f"{folder}: can't be read: {error.strerror}") from error
    if not exists:
        raise UserError(f"{folder}: no such folder; give phantom, or the DIR of {_prepare_command('IMAGES')}")
    if not found:
        raise UserError(f"{folder}: holds no prepared data set; give the DIR of {_prepare_command(folder)}")
    if len(found) > 1:
        raise UserError(f"{folder}: holds {len(found)} data sets; give one of {', '.join(map(str, found))}")
    return found[0]


def _prepare_command(archive: Path | str) -> str:
    return f"`python -m jaxcnn.data prepare {archive} --out DIR`"


def _read_prepared(folder: Path) -> Dataset:
    # Only here, so that training on the phantom starts without it.
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        features, sizes = builder.info.features, builder.info.splits
        # TFDS would read other data sets just as well.
        if set(features) - {"patient"} != _FEATURES or not features["label"].names:
            command = _prepare_command("IMAGES")
            raise UserError(f"{folder}: is a TFDS data set of another kind; give the DIR of {command}")
        splits = {name: _read_split(builder, name) for name in SPLITS if name in sizes and sizes[name].num_examples}
        return Dataset(str(folder), _classes(folder, splits), splits)
    except UserError:
        raise
    # Whatever a damaged file makes protobuf, array-record (RuntimeError), TFDS and Pillow raise.
    except Exception as error:
        raise UserError(f"{folder}: the data set is damaged ({error}); prepare it again with --overwrite") from error


def _classes(folder: Path, splits: Mapping[str, Split]) -> tuple[str, ...]:
    """The names of the classes; TFDS makes some up where it can't read the file, and doesn't count them."""
    names = (folder / "label.labels.txt").read_text("utf-8").splitlines()
    count = 1 + max(int(split.labels.max()) for split in splits.values())
    if len(set(names)) != len(names) or len(names) < count:
        raise ValueError(f"label.labels.txt names {len(set(names))} classes, but there are {max(count, len(names))}")
    return tuple(names)


def _read_split(builder: Any, name: str) -> Split:
    import tensorflow_datasets as tfds

    # TFDS decodes with OpenCV where it is installed and warns where it isn't; Pillow is what wrote these files.
    records = list(builder.as_data_source(name, decoders={"image": tfds.decode.SkipDecoding()}))
    patients = tuple(record.get("patient", b"").decode() for record in records)
    return Split(
        images=np.stack([_decode_png(record["image"]) for record in records]),
        labels=np.array([record["label"] for record in records], np.int32),
        names=tuple(record["file_name"].decode() for record in records),
        patients=patients if any(patients) else None,
    )


def _decode_png(png: bytes) -> UInt8[np.ndarray, "size size 1"]:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return np.asarray(image)[..., np.newaxis]
