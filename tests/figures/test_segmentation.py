"""Outlines lie where the masks are, the table tells Dice over all slices of a patient, and no torch is needed."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from random_weights import save_random_weights

from convert.__main__ import main as convert
from figures.segmentation import dice_table, segmentation, segmentation_figure
from jaxcnn import SimpleCNN, UNet, cli
from jaxcnn.data.slices import Slices


def square(top, left, size=4):
    mask = np.zeros((32, 48), bool)
    mask[top : top + size, left : left + size] = True
    return mask


NOTHING = np.zeros((32, 48), bool)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
# Patient b has slices 0, 2 and 4: one found, one half found, one missed. In patient a there is nothing.
TRUE = np.stack([square(8, 10), NOTHING, square(8, 10), NOTHING, square(20, 30)])
PREDICTED = np.stack([square(8, 10), NOTHING, square(8, 12), NOTHING, NOTHING])
SLICES = Slices(IMAGES, TRUE.astype(np.uint8), ("b", "a", "b", "a", "b"))


@pytest.fixture
def weights(tmp_path):
    save_random_weights(tmp_path / "weights", UNet(features=1), (32, 48, 3))
    return tmp_path / "weights"


@pytest.fixture
def images(tmp_path):
    np.savez(tmp_path / "slices.npz", images=IMAGES, masks=TRUE, patients=np.array(SLICES.patients))
    return tmp_path / "slices.npz"


@pytest.fixture
def draw(monkeypatch, capsys):
    """Run the command with these options; give the exit code, stdout and stderr."""

    def run(**options):
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["figures", *words])
        with pytest.raises(SystemExit) as error:
            cli.run("python -m figures segmentation", segmentation, "Outlines.")
        captured = capsys.readouterr()
        return error.value.code, captured.out, captured.err

    return run


def outlines(panel):
    """For each outline its colour, and the rows and columns between which it lies."""
    found = {}
    for contour in panel.collections:
        (path,) = contour.get_paths()
        (left, top), (right, bottom) = path.vertices.min(axis=0), path.vertices.max(axis=0)
        found[tuple(contour.get_edgecolor()[0])] = (top, bottom, left, right)
    return found


def test_outlines_lie_around_the_masks():
    figure = segmentation_figure(SLICES, PREDICTED)
    b, a = np.reshape(figure.axes, (2, 4))
    assert [panel.get_title() for panel in b] == ["slice 1 of 3", "slice 2 of 3", "slice 3 of 3", ""]
    # Half a pixel from the centres of the outermost pixels.
    first, second, third = (outlines(panel) for panel in b[:3])
    assert list(first.values()) == [(7.5, 11.5, 9.5, 13.5)] * 2
    assert list(second.values()) == [(7.5, 11.5, 11.5, 15.5), (7.5, 11.5, 9.5, 13.5)]
    assert list(third.values()) == [(19.5, 23.5, 29.5, 33.5)]
    predicted, true = first
    assert list(second) == [predicted, true]
    assert list(third) == [true]
    np.testing.assert_array_equal(b[1].images[0].get_array(), IMAGES[2, :, :, 1])
    # Where there is nothing to outline, any slices are shown.
    assert [panel.get_title() for panel in a] == ["slice 1 of 2", "slice 2 of 2", "", ""]
    assert not any(outlines(panel) for panel in a)


def test_the_legend_names_what_is_shown():
    assert [text.get_text() for text in segmentation_figure(SLICES, PREDICTED).legends[0].get_texts()] == [
        "predicted",
        "true",
    ]
    unknown = dataclasses.replace(SLICES, masks=None)
    figure = segmentation_figure(unknown, PREDICTED)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predicted"]
    assert [len(outlines(panel)) for panel in figure.axes[:2]] == [1, 1]


def test_of_many_patients_and_slices_some_are_shown():
    slices = Slices(np.tile(IMAGES, (10, 1, 1, 1)), None, tuple(f"p{i // 5}" for i in range(50)))
    figure = segmentation_figure(slices, np.ones((50, 32, 48), bool))
    assert len(figure.axes) == 6 * 4
    assert [panel.get_ylabel() for panel in figure.axes[::4]] == ["p0", "p2", "p4", "p5", "p7", "p9"]
    assert [panel.get_title() for panel in figure.axes[:4]] == [f"slice {n} of 5" for n in (1, 2, 4, 5)]


def test_dice_is_over_all_slices_of_a_patient():
    lines = [line.split() for line in dice_table(SLICES, PREDICTED).splitlines()]
    dice = 2 * (16 + 8) / (2 * 16 + 3 * 16)
    assert lines == [
        ["patient", "slices", "predicted", "true", "Dice"],
        ["b", "3", "2", "3", f"{dice:.4f}"],
        ["a", "2", "0", "0", "1.0000"],
        ["mean", f"{(dice + 1) / 2:.4f}"],
    ]


def test_without_true_masks_there_is_no_dice():
    lines = dice_table(dataclasses.replace(SLICES, masks=None), PREDICTED).splitlines()
    assert [line.split() for line in lines[1:]] == [["b", "3", "2", "–", "–"], ["a", "2", "0", "–", "–"]]


@pytest.mark.slow
def test_the_command_prints_the_table_and_draws_the_picture(draw, weights, images, tmp_path):
    for name in ("one", "two"):
        code, out, err = draw(weights=weights, images=images, out=tmp_path / f"{name}.png")
        assert (code, err) == (0, "")
        assert out.endswith(f"\n\n{tmp_path / name}.png\n")
        assert [line.split()[0] for line in out.splitlines()[:4]] == ["patient", "b", "a", "mean"]
    with Image.open(tmp_path / "one.png") as picture:
        assert min(picture.size) > 400
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.slow
def test_torch_is_not_needed(weights, images, tmp_path):
    script = """
import sys
from pathlib import Path
sys.modules["torch"] = None  # an import of it fails
from figures.segmentation import segmentation
segmentation(weights=Path(sys.argv[1]), images=Path(sys.argv[2]), out=Path(sys.argv[3]))
"""
    subprocess.run([sys.executable, "-c", script, weights, images, tmp_path / "picture.png"], check=True)
    assert (tmp_path / "picture.png").exists()


@pytest.mark.slow
def test_wrong_input_is_told_in_one_line(draw, weights, images, tmp_path):
    np.savez(tmp_path / "odd.npz", images=IMAGES[..., :2])
    save_random_weights(
        tmp_path / "simplecnn",
        SimpleCNN(stem_features=(1, 1), skip_features=1, head_features=1, hidden_features=1),
        (64, 64, 1),
    )
    for options, message in [
        ({"weights": tmp_path / "missing", "images": images}, "missing: holds no weights (no manifest.json)"),
        ({"weights": tmp_path / "simplecnn", "images": images}, "holds a SimpleCNN, not a UNet"),
        ({"weights": weights, "images": tmp_path / "missing.npz"}, "missing.npz: no such file or folder"),
        ({"weights": weights, "images": tmp_path / "odd.npz"}, "2 channels"),
        ({"weights": weights}, "--images"),
    ]:
        code, out, err = draw(**options)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.optimized  # It computes for longer than it compiles.
def test_the_stand_in_reaches_the_dice_that_was_measured_in_torch(shared, draw, tmp_path, monkeypatch):
    arguments = ["convert", "unet", shared / "weights" / "unet-lgg128.pt", tmp_path / "weights"]
    monkeypatch.setattr(sys, "argv", [*map(str, arguments)])
    with pytest.raises(SystemExit):
        convert()
    capture = draw(weights=tmp_path / "weights", images=shared / "data" / "lgg-sample.npz", out=tmp_path / "out.png")
    table = {line.split()[0]: line.split()[-1] for line in capture[1].splitlines() if line.startswith("TCGA")}
    assert table == {
        "TCGA_CS_6188_20010812": "0.6887",
        "TCGA_CS_6290_20000917": "0.9174",
        "TCGA_DU_5855_19951217": "0.8666",
    }
