"""The title of a figure of one run."""

import textwrap

from jaxcnn.runs.folder import Run, read_data


def run_title(run: Run) -> str:
    """Name and protocol of the run, with dollar signs escaped so that Matplotlib doesn't read them as mathematics."""
    return f"{run.name}, protocol {read_data(run)['protocol']}".replace("$", r"\$")


def fit_title(title: str) -> str:
    """Break a title into lines that fit above a figure."""
    return textwrap.fill(title, 60)
