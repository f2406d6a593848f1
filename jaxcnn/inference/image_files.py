"""The image files that a user names: found, and decoded a batch at a time."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import UInt8

from jaxcnn.data.archive import open_files, read_file
from jaxcnn.data.image import SUFFIXES, decode_grey


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A file that was named or that lies in a folder that was, not read yet.

    Attributes:
        path: as it was given, or below the folder as that was given, so that files of the same name stay apart.
        read: gives the bytes; raises ValueError, whose message continues a sentence that begins with the path.
    """

    path: Path
    read: Callable[[], bytes]

    @property
    def shown(self) -> str:
        """The path as text that can be printed, even where the bytes of a name are no text."""
        return os.fsencode(self.path).decode(errors="backslashreplace")


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that gives no image.

    Attributes:
        file: the one.
        reason: continues a sentence that begins with its path.
    """

    file: ImageFile
    reason: str


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The files of a batch that are images, in the order of `images`, and the others."""

    files: tuple[ImageFile, ...]
    images: UInt8[np.ndarray, "batch size size 1"]
    skipped: tuple[Skipped, ...]


def find_images(paths: tuple[Path, ...]) -> list[ImageFile]:
    """The files in the order given; for a folder the images in it, however deep, in the order of their names.

    A folder without images stands for itself, as a file that can't be read.

    Raises:
        UserError: a folder can't be read.
    """
    return [file for path in paths for file in (_images_below(path) if path.is_dir() else [_single(path)])]


def _single(path: Path) -> ImageFile:
    return ImageFile(path, partial(read_file, path))


def _images_below(folder: Path) -> list[ImageFile]:
    with open_files(folder) as files:
        names = sorted(name for name in files if name.suffix.lower() in SUFFIXES)
    return [_single(folder / name) for name in names] or [ImageFile(folder, _fail_as_empty)]


def _fail_as_empty() -> NoReturn:
    raise ValueError(f"holds no {', '.join(SUFFIXES)} files")


def decode_in_batches(files: list[ImageFile], size: int, batch_size: int) -> Iterator[Decoded]:
    """Decode so many files at a time as data sets are prepared (`decode_grey`), and keep one batch in memory."""
    for start in range(0, len(files), batch_size):
        decoded, images, skipped = [], [], []
        for file in files[start : start + batch_size]:
            try:
                images.append(decode_grey(file.read(), size))
                decoded.append(file)
            except ValueError as error:
                skipped.append(Skipped(file, str(error)))
        stacked = np.stack(images) if images else np.zeros((0, size, size, 1), np.uint8)
        yield Decoded(tuple(decoded), stacked, tuple(skipped))
