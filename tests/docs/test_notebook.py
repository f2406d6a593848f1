"""docs/tour.ipynb runs from its first cell to its last, with a small network and few images, and shows what it says."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
SMALL = {
    "load_dataset(DATA)": "load_dataset(DATA, max_images=32)",
    "image_size=64, width=0.5, epochs=4": "image_size=64, width=0.05, epochs=2, max_images=32",
}


@pytest.mark.slow
def test_the_notebook_runs_and_draws_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    for whole, small in SMALL.items():
        (cell,) = (cell for cell in notebook.cells if whole in cell.source)
        cell.source = cell.source.replace(whole, small)
    # A cell that fails raises an error.
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    warned = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not [text for text in warned if "epoch" not in text and text.strip()]
    assert (tmp_path / "runs" / "tour" / "best" / "manifest.json").is_file()
