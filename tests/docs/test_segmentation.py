"""docs/segmentation.md, done by the letter but with a small network and few images: its commands are run in turn."""

import csv
import re
import shlex
import sys
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

from jaxcnn.__main__ import main
from jaxcnn.inference.trained import load_best
from jaxcnn.models.unet import STAGE_NAMES
from jaxcnn.runs.folder import Run

PAGE = (Path(__file__).parents[2] / "docs" / "segmentation.md").read_text("utf-8")
SMALL = shlex.split("--width 0.06 --max-images 48 --epochs 1 --batch-size 8 --image-size 32")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With the files that the page names; a network compiles fast, and runs slowly."""
    random = np.random.default_rng(0)
    masks = random.random((30, 32, 32)) > 0.8
    masks[::3] = False
    images = random.integers(0, 256, (30, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "lgg.npz", images=images, masks=masks, patients=np.repeat([f"p{n}" for n in range(10)], 3))
    volume = random.integers(0, 900, (24, 32, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1, 4, 1])), tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):
        yield tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_does_what_it_says(folder, monkeypatch, capsys):
    for line in "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines():
        words = shlex.split(line)[2:]
        if "segmentation" in words:
            words += [*SMALL, *(["--folds", "2"] if "--folds" in words else [])]
        if words[:2] == ["train", "unet"]:
            words += [*SMALL, "--head", "pooled"]
        monkeypatch.setattr(sys, "argv", ["jaxcnn", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, (line, capsys.readouterr().err)
    # The frozen stages of the classifier have the bits of the run.
    found, expected = (load_best(Run(folder / "runs" / name)).variables for name in ("from-tumors", "tumors"))
    for stage in STAGE_NAMES[:4]:
        jax.tree.map(np.testing.assert_array_equal, found["params"]["unet"][stage], expected["params"][stage])
    drawn = {path.name for path in (folder / "runs" / "tumors" / "figures").iterdir()}
    assert drawn == {"learning-curves.png", "dice.png", "gallery.png"}
    assert (folder / "runs" / "folds" / "figures" / "dice.png").is_file()
    with (folder / "runs" / "folds" / "patients.csv").open() as file:
        assert {line["patient"] for line in csv.DictReader(file)} == {f"p{n}" for n in range(10)}
    mask = nibabel.load(folder / "masks" / "scan_mask.nii.gz")
    assert mask.shape == (24, 32, 5)
    np.testing.assert_array_equal(mask.affine, np.diag([1.0, 1, 4, 1]))
