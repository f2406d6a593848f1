"""What an audit looks at: small images of whatever origin, with what is known of each."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from jaxcnn.data.audit.class_folders import ClassFile, open_class_folders
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.duplicates import SIDE, Thumbnails, make_thumbnails
from jaxcnn.data.image import decode_grey, pixel_size
from jaxcnn.data.load import DATA_SET, load_dataset
from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class Collection:
    """Images in the order of their files or of their splits.

    Attributes:
        source: where they come from.
        thumbnails: uint8 (n, 64, 64, 1).
        digests: SHA-256 of each.
        digests_of: "files" as they are published, or "pixels" where the files were written anew by preparing them.
        names: one an image.
        labels: class names.
        splits: split names; "all" where there is no split.
        sizes: (width, height) in pixels, before an image is made a square.
        broken: what could not be read, and why: name and reason make a sentence.
    """

    source: str
    thumbnails: Thumbnails
    digests: tuple[str, ...]
    digests_of: Literal["files", "pixels"]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    broken: Mapping[str, str]


def read_collection(source: str) -> Collection:
    """Read a prepared data set, the phantom, or any folder or zip of class folders.

    Raises:
        UserError: it is none of these, is damaged, or holds no usable image.
    """
    if source == "phantom" or _is_prepared(Path(source)):
        return _from_dataset(load_dataset(source))
    return _from_class_folders(Path(source))


def _is_prepared(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file() or any(folder.glob(f"{DATA_SET}/*/*/dataset_info.json"))


def _from_dataset(dataset: Dataset) -> Collection:
    splits = dataset.splits
    images = np.concatenate([split.images for split in splits.values()])
    return Collection(
        source=dataset.source,
        thumbnails=make_thumbnails(images),
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images),
        digests_of="pixels",
        names=tuple(name for split in splits.values() for name in split.names),
        labels=tuple(dataset.classes[label] for split in splits.values() for label in split.labels),
        splits=tuple(name for name, split in splits.items() for _ in split.names),
        sizes=((images.shape[2], images.shape[1]),) * len(images),
        broken={},
    )


def _from_class_folders(path: Path) -> Collection:
    read: list[tuple[ClassFile, str, np.ndarray, tuple[int, int]]] = []
    broken = {}
    with open_class_folders(path) as files:
        for file in tqdm(files, unit=" images", disable=None):  # None: on a terminal only.
            try:
                encoded = file.read()
                thumbnail = decode_grey(encoded, SIDE)
                read.append((file, hashlib.sha256(encoded).hexdigest(), thumbnail, pixel_size(encoded)))
            except ValueError as error:
                broken[file.name] = str(error)
    if not read:
        name, reason = next(iter(broken.items()))
        raise UserError(f"{path}: no image can be read; the first, {name}, {reason}")
    return Collection(
        source=str(path),
        thumbnails=np.stack([thumbnail for _, _, thumbnail, _ in read]),
        digests=tuple(digest for _, digest, *_ in read),
        digests_of="files",
        names=tuple(file.name for file, *_ in read),
        labels=tuple(file.label for file, *_ in read),
        splits=tuple(file.split for file, *_ in read),
        sizes=tuple(size for *_, size in read),
        broken=broken,
    )
