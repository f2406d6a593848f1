from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.__main__ import main
from jaxcnn.data.kaggle import CLASSES


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder in the archive's layout with random images, three a class and split, colour and grey, wide and high."""
    random = np.random.default_rng(0)
    folder = tmp_path / "scans"
    for split in ("Training", "Testing"):
        for label in CLASSES:
            place = folder / "brain_tumor_classification" / split / label
            place.mkdir(parents=True)
            for i, shape in enumerate([(40, 50, 3), (60, 36, 3), (20, 24)]):
                Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(place / f"scan ({i + 1}).jpg")
    return folder


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple]:
    """Run `python -m jaxcnn.data` with these words; give the exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["jaxcnn.data", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
