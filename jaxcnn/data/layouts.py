"""Find the label of each image from the layout of a folder or zip, or from a table of labels.

    CLASS/image                     SPLIT/CLASS/image
    CLASS/PATIENT/image             SPLIT/CLASS/PATIENT/image       (and folders below PATIENT)
    a table with the columns path, label and, if wanted, split and patient (`jaxcnn.data.label_table`)
    files that hold their label themselves (MATLAB)

All of it may lie at any depth. SPLIT is one of the usual names, in any case: train, training; val, valid, validation;
test, testing. A patient who has a folder in two classes, or in two splits, is one patient.
"""

import contextlib
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from jaxcnn.data.files import LeftOut, StoredFile, open_files, shown
from jaxcnn.data.label_table import Row, is_label_table, read_label_table
from jaxcnn.data.readers.table import Reader, image_files
from jaxcnn.errors import UserError

# What the folders of splits are called, in lower case.
SPLIT_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# The patient in names as those of The Cancer Genome Atlas: TCGA_CS_4941_19960909_12.tif.
_TCGA_PATIENT = re.compile(r"TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4}(?=[-_.])", re.IGNORECASE)
_ARRANGE = "arrange them as [SPLIT/]CLASS/image or [SPLIT/]CLASS/PATIENT/image, or list them in a CSV"

Images = Sequence[tuple[StoredFile, Reader]]


@dataclasses.dataclass(frozen=True)
class LabelledFile:
    """An image file with its label, split and patient, before it is read.

    Attributes:
        file: how to read it.
        reader: of its format.
        name: its path from the folder that holds all images.
        label: its class; "" where the file itself holds it.
        split: as its folder is called, or as the table says; "" where there are no splits.
        patient: whose image it is; "" where neither folder nor table nor name tells.
    """

    file: StoredFile
    reader: Reader
    name: str
    label: str
    split: str
    patient: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """The content of a folder or a zip: the images, how they are arranged, and the other files."""

    layout: str
    files: tuple[LabelledFile, ...]
    left_out: tuple[LeftOut, ...]


@contextlib.contextmanager
def open_labelled(path: Path) -> Iterator[Listing]:
    """List the images of a folder, a zip or a table, sorted by path; they can be read until the block ends.

    A table that lies in the folder or the zip is taken before the folders' names.

    Raises:
        UserError: no such file, no images, or they are arranged in another way; two names differ in case alone.
    """
    by_itself = path.suffix.lower() in (".csv", ".tsv") and not path.is_dir()
    if by_itself and not path.is_file():
        raise UserError(f"{path}: no such file; give a table with the columns path and label, a folder or a zip")
    with open_files(path.absolute().parent if by_itself else path) as files:
        tables = [file for file in files if is_label_table(file)]
        if by_itself:
            tables = [file for file in files if file.path == PurePosixPath(path.name)]
        if len(tables) > 1:
            listed = ", ".join(shown(table.path) for table in tables[:4])
            raise UserError(f"{path}: holds several tables of labels ({listed}); give the one to use")
        images, left_out = image_files([file for file in files if file not in tables])
        if tables:
            rows = read_label_table(path, tables[0], [file.path for file, _ in images])
            listing = _by_table(path, images, rows, tables[0].path.name)
        else:
            listing = _by_folders(path, images)
        _check_case(path, listing.files)
        yield dataclasses.replace(listing, left_out=(*left_out, *listing.left_out))


def _by_table(path: Path, images: Images, rows: Mapping[PurePosixPath, Row], table: str) -> Listing:
    root = _root([file.path for file, _ in images if file.path in rows])
    files, left_out = [], []
    for file, reader in images:
        row = rows.get(file.path)
        if row is None:
            left_out.append(LeftOut(shown(file.path), f"is not listed in {table}"))
        else:
            if row.split and row.split.lower() not in SPLIT_NAMES:
                raise UserError(
                    f"{path}: {table} has the unknown split {row.split!r} in line {row.line}; use one of"
                    f" {', '.join(SPLIT_NAMES)}, in any case"
                )
            files.append(_file((file, reader), root, row.label, row.split, row.patient))
    return Listing(f"the table {table}", tuple(files), tuple(left_out))


def _by_folders(path: Path, images: Images) -> Listing:
    if not images:
        raise UserError(f"{path}: holds no image files; give a folder or a zip of images")
    root = _root([file.path for file, _ in images])
    folders = [file.path.relative_to(root).parts[:-1] for file, _ in images]
    with_label = [reader.labels for _, reader in images]
    if any(with_label):
        if not all(with_label):
            both = [images[with_label.index(has)][0].path for has in (True, False)]
            raise UserError(
                f"{path}: {shown(both[0])} contains its own label and {shown(both[1])} doesn't; keep one kind of file"
            )
        return Listing("image, which holds its label", tuple(_file(image, root, "", "", "") for image in images), ())
    _check_depth(path, images, folders)
    splits = [_is_split(of[0]) if of else False for of in folders]
    _check_splits(path, folders, splits)
    first = int(splits[0])
    class_of_all = shown(root.name or path.stem)
    files = [
        _file(
            image,
            root,
            label=shown(of[first]).strip() if of else class_of_all,
            split=shown(of[0]) if first else "",
            patient=shown(of[first + 1]) if len(of) > first + 1 else "",
        )
        for image, of in zip(images, folders, strict=True)
    ]
    levels = [*["SPLIT"] * first, "CLASS", "PATIENT", *["folder"] * len(folders[0])]
    return Listing("/".join([*levels[: max(len(folders[0]), 1)], "image"]), tuple(files), ())


def _root(paths: Sequence[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all images."""
    return PurePosixPath(os.path.commonpath([path.parent for path in paths]) if paths else "")


def _file(image: tuple[StoredFile, Reader], root: PurePosixPath, label: str, split: str, patient: str) -> LabelledFile:
    file, reader = image
    name = shown(file.path.relative_to(root))
    if not patient and (found := _TCGA_PATIENT.match(file.path.name)):
        patient = found.group().upper().replace("-", "_")
    return LabelledFile(file, reader, name, label, split, patient)


def _is_split(folder: str) -> bool:
    return folder.lower() in SPLIT_NAMES


def _check_depth(path: Path, images: Images, folders: Sequence[tuple[str, ...]]) -> None:
    by_depth = sorted(range(len(images)), key=lambda place: len(folders[place]))
    least, most = by_depth[0], by_depth[-1]
    if len(folders[least]) != len(folders[most]):
        names = [shown(images[place][0].path) for place in (least, most)]
        raise UserError(f"{path}: {names[0]} and {names[1]} lie at different depths; {_ARRANGE}")


def _check_splits(path: Path, folders: Sequence[tuple[str, ...]], splits: Sequence[bool]) -> None:
    for of in folders:
        for place, folder in enumerate(of[1:], 1):
            if _is_split(folder):
                holders = sorted({shown("/".join(other[:place])) for other in folders})
                raise UserError(
                    f"{path}: several folders hold splits such as {shown(folder)} ({', '.join(holders[:4])}); keep one"
                    " of them, or arrange them as SPLIT/CLASS/image"
                )
    if any(splits):
        names = sorted({of[0] for of in folders})
        if not all(splits):
            others = ", ".join(shown(name) for name in names if not _is_split(name))
            raise UserError(f"{path}: has {others} beside the folders of splits; move those out, or {_ARRANGE}")
        if len(folders[0]) < 2:
            raise UserError(f"{path}: {', '.join(map(shown, names))} hold no folders of classes; {_ARRANGE}")
        for role, count in Counter(SPLIT_NAMES[name.lower()] for name in names).items():
            if count > 1:
                same = " and ".join(shown(name) for name in names if SPLIT_NAMES[name.lower()] == role)
                raise UserError(f"{path}: {same} are the same split; merge the folders")


def _check_case(path: Path, files: Sequence[LabelledFile]) -> None:
    """Refuse names that would be one on the file systems of Windows and macOS, and classes that are one by mistake."""
    for what, names in (("classes", {file.label for file in files}), ("files", {file.name for file in files})):
        known: dict[str, str] = {}
        for name in sorted(names):
            other = known.setdefault(name.casefold(), name)
            if other != name:
                raise UserError(f"{path}: the {what} {other} and {name} differ in case alone; rename one of them")
