"""What a figure of one run is called: the run, and the protocol without which its scores can't be read."""

from jaxcnn.runs.folder import Run, read_data


def run_title(run: Run) -> str:
    """Name and protocol of the run, as Matplotlib takes it: a dollar sign is no mathematics."""
    return f"{run.name}, protocol {read_data(run)['protocol']}".replace("$", r"\$")
