"""Any folder (or zip) of class folders: CLASS/image.jpg, or SPLIT/CLASS/image.jpg."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from jaxcnn.data.archive import open_files
from jaxcnn.data.image import SUFFIXES
from jaxcnn.errors import UserError

_LAYOUTS = "CLASS/image.jpg or SPLIT/CLASS/image.jpg"


@dataclasses.dataclass(frozen=True)
class ClassFile:
    """An image file, not read yet.

    Attributes:
        split: name of the folder around the class folders; "all" where there is none.
        label: name of the class folder.
        name: path from the folder that holds all images.
        read: gives the bytes; raises ValueError, whose message continues a sentence that begins with `name`.
    """

    split: str
    label: str
    name: str
    read: Callable[[], bytes]


@contextlib.contextmanager
def open_class_folders(path: Path) -> Iterator[list[ClassFile]]:
    """List the images by name; they can be read until the block ends.

    Args:
        path: a folder or a zip. The class folders, or the splits that hold them, may lie at any depth in it.

    Raises:
        UserError: no such file, no images, or another layout.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give a prepared data set or a folder of class folders")
    with open_files(path) as files:
        images = {name: read for name, read in sorted(files.items()) if name.suffix.lower() in SUFFIXES}
        root = _check_layout(path, images)
        yield [_class_file(path, root, name, read) for name, read in images.items()]


def _check_layout(path: Path, names: Collection[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all images, in which they must all be equally deep."""
    if not names:
        raise UserError(f"{path}: holds no {', '.join(SUFFIXES)} files; give a folder of class folders")
    root = PurePosixPath(os.path.commonpath([name.parent for name in names]))
    folders = {name: name.relative_to(root).parts[:-1] for name in names}
    by_depth = sorted(names, key=lambda name: len(folders[name]))
    least, most = len(folders[by_depth[0]]), len(folders[by_depth[-1]])
    if least != most or most > 2:
        raise UserError(f"{path}: {by_depth[0]} and {by_depth[-1]} are not both {_LAYOUTS}; arrange the images so")
    if most == 2:
        _check_splits(path, set(folders.values()))
    return root


def _check_splits(path: Path, folders: Collection[tuple[str, ...]]) -> None:
    """Tell SPLIT/CLASS from what looks like it, such as CLASS/PATIENT: splits have classes in common."""
    labels = [label for _, label in folders]
    if len(set(labels)) == len(labels):
        listed = ", ".join(sorted({split for split, _ in folders})[:4])
        raise UserError(f"{path}: the folders {listed} have no class in common; arrange the images as {_LAYOUTS}")


def _class_file(path: Path, root: PurePosixPath, name: PurePosixPath, read: Callable[[], bytes]) -> ClassFile:
    *outer, label = name.relative_to(root).parts[:-1] or (root.name or path.stem,)
    return ClassFile(outer[0] if outer else "all", label, name.relative_to(root).as_posix(), read)
