"""Figures and pages are written completely or not at all, and their path is printed."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from matplotlib.figure import Figure

from jaxcnn.errors import UserError
from jaxcnn.runs.files import telling_unwritable, whole_file


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` and print the path; the suffix chooses the format.

    Raises:
        UserError: Matplotlib doesn't know the suffix, or the file can't be written.
    """
    with _saved(path, figure.canvas.get_supported_filetypes()) as temporary:
        figure.savefig(temporary, dpi=150)


def save_page(page: str, path: Path) -> None:
    """Write an HTML page to `path` and print the path.

    Raises:
        UserError: the suffix isn't that of an HTML page, or the file can't be written.
    """
    with _saved(path, ("html", "htm")) as temporary:
        # A folder's name may hold bytes that aren't text.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _saved(path: Path, known: Collection[str]) -> Iterator[Path]:
    if path.suffix.removeprefix(".") not in known:
        raise UserError(f"--out {path}: unknown suffix; choose one of {', '.join(known)}")
    with telling_unwritable(f"--out {path}", "choose another file"), whole_file(path) as temporary:
        yield temporary
    print(path)
