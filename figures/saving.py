"""How a figure is written: whole or not at all, and its address is printed."""

from pathlib import Path

from matplotlib.figure import Figure

from jaxcnn.atomic import whole_file
from jaxcnn.cli import UserError


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` and print the address; the suffix chooses the format.

    Raises:
        UserError: Matplotlib doesn't know the suffix, or the file can't be written.
    """
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise UserError(f"--out {path}: unknown suffix; choose one of {', '.join(known)}")
    try:
        with whole_file(path) as temporary:
            figure.savefig(temporary, dpi=150)
    except OSError as error:
        raise UserError(f"--out {path}: can't be written: {error.strerror or error}; choose another") from error
    print(path)
