"""Read a table of labels: a CSV or TSV file with one line per image."""

import csv
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from jaxcnn.data.files import FileError, StoredFile, shown
from jaxcnn.errors import UserError

COLUMNS = ("path", "label", "split", "patient")
_NEEDED = ("path", "label")
_MOST_BYTES = 64_000_000


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table; split and patient are "" where the table doesn't give them."""

    label: str
    split: str
    patient: str
    line: int


def is_label_table(file: StoredFile) -> bool:
    """Tell whether this is a CSV or TSV file whose first line has the columns that a table of labels needs."""
    if file.path.suffix.lower() not in (".csv", ".tsv"):
        return False
    try:
        lines = _text(file.read(4096)).splitlines()
    except FileError:
        return False
    return bool(lines) and set(_NEEDED) <= set(_header(lines[0]))


def read_label_table(source: Path, table: StoredFile, images: Collection[PurePosixPath]) -> Mapping[PurePosixPath, Row]:
    """Read the rows, by the paths of their images.

    Columns are separated by commas, semicolons or tabs, whichever the first line has most of, and may stand in any
    order. Paths are relative to the table's folder, with "/" or a backslash. The text is UTF-8; bytes that are none
    stand for themselves, as they do in file names.

    Args:
        source: what the user named, for messages.
        table: the file.
        images: the image files there are.

    Raises:
        UserError: a column is unknown or missing, a path leads outside, or to no image, or is listed twice, a label is
            missing.
    """
    name = shown(table.path)
    try:
        lines = _text(table.content(_MOST_BYTES)).splitlines()
    except FileError as error:
        raise UserError(f"{source}: {name} {error}") from error
    columns = _header(lines[0]) if lines else ()
    if missing := [column for column in _NEEDED if column not in columns]:
        raise UserError(f"{source}: {name} has no column {missing[0]}; its first line must name path and label")
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise UserError(f"{source}: {name} has the unknown column {unknown[0]!r}; use only {', '.join(COLUMNS)}")
    if len(set(columns)) < len(columns):
        raise UserError(f"{source}: {name} names a column twice; name each once")
    known, rows = set(images), dict[PurePosixPath, Row]()
    for line, cells in enumerate(_cells(lines[1:], _delimiter(lines[0])), 2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{source}: {name}, line {line}"
        if len(cells) != len(columns):
            raise UserError(f"{where}: has {len(cells)} columns, the first line has {len(columns)}; complete it")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        path = _path(where, table.path.parent, row["path"], known)
        if path in rows:
            raise UserError(f"{where}: lists {shown(path)} again, after line {rows[path].line}; keep one of them")
        if not row["label"]:
            raise UserError(f"{where}: has no label for {shown(path)}; add one, or leave the line out")
        rows[path] = Row(shown(row["label"]), row.get("split", ""), shown(row.get("patient", "")), line)
    if not rows:
        raise UserError(f"{source}: {name} lists no images; add a line for each")
    return rows


def _text(content: bytes) -> str:
    return content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _header(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().lower() for cells in _cells([line], _delimiter(line)) for cell in cells)


def _cells(lines: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    """Line by line: a quotation mark that is never closed must not swallow the rest of the table."""
    for line in lines:
        try:
            yield next(csv.reader([line.replace("\0", "")], delimiter=delimiter), [])
        except csv.Error:
            yield []


def _path(where: str, folder: PurePosixPath, cell: str, images: set[PurePosixPath]) -> PurePosixPath:
    # A backslash parts folders only where no file has it in its name.
    path = folder / cell
    if path not in images:
        path = folder / PureWindowsPath(cell).as_posix()
    if PureWindowsPath(cell).anchor or ".." in path.parts:
        raise UserError(f"{where}: the path {shown(cell)} points outside the table's folder; give paths within it")
    if path not in images:
        raise UserError(f"{where}: {shown(cell)} is not an image file there; correct the path")
    return path
