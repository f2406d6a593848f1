"""Find the image files that a user names, and decode them batch by batch."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from jaxcnn.data.files import FileError, LeftOut, StoredFile, open_files, shown, single_file
from jaxcnn.data.image import to_square
from jaxcnn.data.labelled import natural_order
from jaxcnn.data.readers.scan import Scan
from jaxcnn.data.readers.table import NO_IMAGE, Reader, find_reader, image_files, read_scan


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A file that the user named, or a file in a folder or zip that the user named; not read yet.

    Attributes:
        path: as it was given, or below the folder or zip as that was given, so that files of the same name stay apart.
        stored: how to get its bytes.
        reader: of its format; None for a file that was named and is no image file.
    """

    path: Path
    stored: StoredFile
    reader: Reader | None

    def read(self) -> Scan:
        """Read the file.

        Raises:
            FileError: it can't be read, or is no good.
            UserError: its format needs a package that is not installed.
        """
        if self.reader is None:
            self.stored.read(1)  # Which tells what is wrong with a file that isn't there.
            raise FileError(NO_IMAGE)
        return read_scan(self.stored.content(self.reader.most_bytes), self.reader)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that gives no image; the reason continues a sentence that begins with its path."""

    path: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class ImageName:
    """Which image it is: its file and, of a file with several slices, which of them."""

    path: Path
    part: str

    def __str__(self) -> str:
        """The path; of a slice followed by "#" and its number."""
        return f"{self.path}#{self.part}" if self.part else str(self.path)

    @property
    def shown(self) -> str:
        """The same as text that can be printed, even where the bytes of a name are no text."""
        return shown(str(self))

    @property
    def stem(self) -> str:
        """Return a file name for a picture of it."""
        return f"{self.path.stem}-{self.part}" if self.part else self.path.stem


@dataclasses.dataclass(frozen=True)
class Found:
    """Image files in order, and the other files in folders and zips."""

    files: tuple[ImageFile, ...]
    left_out: tuple[LeftOut, ...]


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The names of the images of a batch, the images, and the files that were found to give none on the way."""

    names: tuple[ImageName, ...]
    images: UInt8[np.ndarray, "batch size size 1"]
    skipped: tuple[Skipped, ...]


@contextlib.contextmanager
def open_images(paths: tuple[Path, ...]) -> Iterator[Found]:
    """List the files in the order given; a folder or zip gives its image files at any depth, in natural order.

    A folder without images stands for itself, as a file that can't be read. Files can be read until the block ends.

    Raises:
        UserError: a folder or a zip can't be read.
    """
    found: list[ImageFile] = []
    left_out: list[LeftOut] = []
    with contextlib.ExitStack() as stack:
        for path in paths:
            if path.is_dir() or path.suffix.lower() == ".zip":
                inside = _look_into(path, stack.enter_context(open_files(path)))
                found += inside.files
                left_out += inside.left_out
            else:
                stored = single_file(path)
                found.append(ImageFile(path, stored, find_reader(stored)))
        yield Found(tuple(found), tuple(left_out))


def _look_into(path: Path, stored: Sequence[StoredFile]) -> Found:
    images, others = image_files(stored)
    files = [ImageFile(path / file.path, file, reader) for file, reader in images]
    files.sort(key=lambda file: natural_order(str(file.path)))
    left_out = tuple(LeftOut(shown(path / file.name), file.reason) for file in others)
    return Found(tuple(files) or (ImageFile(path, _empty(path), None),), left_out)


def _empty(path: Path) -> StoredFile:
    def fail(_: int) -> bytes:
        raise FileError("holds no image files")

    return dataclasses.replace(single_file(path), read=fail)


def decode_in_batches(files: Sequence[ImageFile], size: int, batch_size: int) -> Iterator[Decoded]:
    """Decode the images in batches, as data sets are prepared, with a progress bar on a terminal.

    One batch is in memory, and what a file holds beyond it.
    """
    names: list[ImageName] = []
    images: list[np.ndarray] = []
    skipped: list[Skipped] = []
    for file in tqdm(files, unit=" files", disable=None, leave=False):  # None: on a terminal only.
        try:
            scan = file.read()
        except FileError as error:
            skipped.append(Skipped(file.path, str(error)))
            continue
        for cut in scan.slices:
            names.append(ImageName(file.path, cut.part))
            images.append(to_square(cut.pixels, size))
            if len(images) == batch_size:
                yield Decoded(tuple(names), np.stack(images), tuple(skipped))
                names, images, skipped = [], [], []
    if names or skipped:
        stacked = np.stack(images) if images else np.zeros((0, size, size, 1), np.uint8)
        yield Decoded(tuple(names), stacked, tuple(skipped))
