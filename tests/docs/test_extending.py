"""docs/extending.md, done by the letter: its file is written, and its commands are run one after the other."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import jax
import pytest

from jaxcnn.__main__ import main
from jaxcnn.data.augment import AUGMENTATIONS
from jaxcnn.models import MODELS
from train.losses import LOSSES

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text("utf-8")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run one of the page's commands in a folder that holds its file; gives the exit code."""
    (tmp_path / "mine.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    monkeypatch.chdir(tmp_path)
    for table in (MODELS, LOSSES, AUGMENTATIONS):
        for name, entry in table.items():
            monkeypatch.setitem(table, name, entry)
    before = [dict(table) for table in (MODELS, LOSSES, AUGMENTATIONS)]
    runpy.run_path("mine.py", run_name="mine")

    def run(line):
        monkeypatch.setattr(sys, "argv", shlex.split(line)[1:])
        with pytest.raises(SystemExit) as ended:
            main("python mine.py")
        return ended.value.code

    # Optax multiplies its int32 count of steps by floats.
    with jax.numpy_dtype_promotion("standard"):
        yield run
    for table, content in zip((MODELS, LOSSES, AUGMENTATIONS), before, strict=True):
        table.clear()
        table.update(content)


@pytest.mark.slow
def test_a_model_a_loss_and_an_augmentation_of_ones_own_are_full_citizens(command, capsys):
    for line in re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1].splitlines():
        assert command(line) == 0, (line, capsys.readouterr().err)
    picture = "runs/tiny/figures/learning-curves.png"
    assert command(f"python mine.py train predict runs/tiny {picture} --saliency runs/maps") == 0
    assert len(list(Path("runs/maps").iterdir())) == 1

    # Without the file the network isn't known.
    del MODELS["tiny"]
    capsys.readouterr()
    assert command(f"python -m train predict runs/tiny {picture}") == 2
    shown = capsys.readouterr().err
    assert "the model TinyNet is not in the table of models" in shown
    assert shown.count("\n") == 1
