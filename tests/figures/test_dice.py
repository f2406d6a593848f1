"""Bars are as long as the patients' Dice, and the gallery shows the best, the median and the worst slices."""

import sys
from functools import partial

import numpy as np
import pytest
from scored_runs import DATA, ENVIRONMENT

from figures.__main__ import main
from figures.dice import dice, dice_figure, gallery_figure
from figures.learning_curves import DICE_PANELS, learning_curves_figure
from jaxcnn.evaluation.masks import MaskPredictions
from jaxcnn.runs.folder import SPLITS, create_run, write_epochs, write_predictions

# The share of the true columns that is found rises from slice to slice; the last slice shows nothing.
TRUE, PREDICTED = np.zeros((2, 13, 16, 16), np.uint8)
for place in range(12):
    TRUE[place, :, :12], PREDICTED[place, :, : place + 1] = 1, 1
PATIENTS = ("a", "b") * 6 + ("c",)
MASKS = MaskPredictions(PREDICTED, TRUE, PATIENTS, tuple(f"x/{n}" for n in range(13)), ("background", "tumor"))
IMAGES = np.random.default_rng(0).integers(0, 256, (13, 16, 16, 3), np.uint8)


def test_bars_are_sorted_and_mean_and_median_are_marked():
    (panel,) = dice_figure({"a": 0.9, "b": 0.5, "c": 0.7}, "run").axes
    assert [bar.get_width() for bar in panel.patches] == [0.5, 0.7, 0.9]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["b", "c", "a"]
    assert [line.get_xdata()[0] for line in panel.get_lines()] == [pytest.approx(0.7), 0.7]


def test_the_gallery_goes_from_best_to_worst_without_slices_that_show_nothing():
    titles = [panel.get_title() for panel in gallery_figure(IMAGES, MASKS, "run").axes]
    shown = [int(title.split(":")[0]) for title in titles]
    assert shown == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert titles[0] == "11: 1.00"


@pytest.mark.parametrize("draw", [lambda title: dice_figure({"a": 0.5}, title), partial(gallery_figure, IMAGES, MASKS)])
def test_a_long_title_stays_on_the_page(draw):
    figure = draw("a run with a name as long as names can be, " * 5)
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y0 >= figure.axes[0].get_tightbbox().y1


@pytest.mark.slow
def test_the_command_draws_a_run_from_its_masks_and_its_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("scans.npz", images=IMAGES, masks=TRUE, patients=np.array(["x"] * 13), slices=np.arange(13))
    data = DATA | {"source": "scans.npz"}
    run = create_run(tmp_path / "run", {"model": "segmentation"}, data, ENVIRONMENT, overwrite=False)
    write_predictions(run, "test", MASKS)
    dice(run.folder)
    dice(run.folder, gallery=True)
    assert capsys.readouterr().out.split() == [str(run.figures / name) for name in ("dice.png", "gallery.png")]


@pytest.mark.parametrize("name", ["models", "report", "confusion-matrices", "roc-curves", "reliability"])
def test_figures_of_classes_refuse_a_run_that_segments_in_one_line(tmp_path, monkeypatch, capsys, name):
    run = create_run(tmp_path / "sweep" / "run", {"model": "segmentation"}, DATA, ENVIRONMENT, overwrite=False)
    scores = {f"{split}_{score}": 0.5 for split in SPLITS for score in ("loss", "dice", "patient_dice")}
    write_epochs(run, [{"epoch": 1, "learning_rate": 0.1, **scores}])
    for split in SPLITS:
        write_predictions(run, split, MASKS)
    folder = run.folder if name in ("roc-curves", "reliability") else run.folder.parent
    monkeypatch.setattr(sys, "argv", ["figures", name, str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert (ended.value.code, shown.count("\n")) == (2, 1)
    assert "is a run that segments" in shown


def test_learning_curves_of_a_network_that_segments_are_those_of_dice():
    line = {"epoch": 1, "validation_loss": 1.0, "validation_dice": 0.5, "validation_patient_dice": 0.4}
    figure = learning_curves_figure({"run": [line | dict.fromkeys(DICE_PANELS, 0.5)]})
    assert [panel.get_title() for panel in figure.axes] == list(DICE_PANELS.values())
