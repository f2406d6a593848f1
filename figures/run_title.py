"""The title of a figure of one run."""

from jaxcnn.runs.folder import Run, read_data


def run_title(run: Run) -> str:
    """Name and protocol of the run, with dollar signs escaped so that Matplotlib doesn't read them as mathematics."""
    return f"{run.name}, protocol {read_data(run)['protocol']}".replace("$", r"\$")
