"""The title of a figure of one run."""

import textwrap

from matplotlib.figure import Figure

from jaxcnn.runs.folder import Run, read_data


def run_title(run: Run) -> str:
    """Name and protocol of the run, with dollar signs escaped so that Matplotlib doesn't read them as mathematics."""
    return f"{run.name}, protocol {read_data(run)['protocol']}".replace("$", r"\$")


def set_title(figure: Figure, title: str, second: str = "") -> None:
    """Put a title above a figure, in lines that fit, and a second one in a line of its own."""
    figure.suptitle("\n".join([*textwrap.wrap(title, 60), *filter(None, [second])]))
