"""The overview of a sweep: every model's line meets each axis at its value, and everything on it can be read."""

import itertools

import numpy as np
import pytest
from figures_command import draw
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from PIL import Image
from scored_runs import options, save_baseline, save_grid, save_run

from figures.models import models_figure
from figures.scored_models import best_model, read_models
from figures.value_axes import MISSING, value_axes

AXES = ("batch size", "learning rate", "dropout", "train F1", "test F1")


def lines(figure):
    """The curves in the order they are drawn, the topmost last."""
    return sorted((p for p in figure.axes[0].patches if isinstance(p, PathPatch)), key=lambda patch: patch.zorder)


def labels(figure, place):
    """The texts beside an axis."""
    return [text for text in figure.axes[0].texts if text.xy[0] == place and text.get_text() not in AXES]


def overlapping(texts):
    boxes = [text.get_window_extent() for text in texts]
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def test_a_line_meets_each_axis_at_the_models_value_and_is_level_there(tmp_path):
    # From the lowest to the highest of each hyper-parameter; logarithmic axes have their middle at the geometric mean.
    for place, (size, rate, dropout) in enumerate([(4, 1e-4, 0.0), (16, 1e-3, 0.25), (64, 1e-2, 0.5)]):
        save_run(tmp_path / str(place), options(size, rate, dropout), [(0.6 + place / 10, 0.5, 0.5 + place / 20)])
    models = read_models([tmp_path])
    found = np.stack([axis.heights for axis in value_axes(models)])
    np.testing.assert_allclose(found[:3], [[0, 0.5, 1]] * 3, atol=1e-12)
    # One scale for both F1: from 0.5, the lowest, to 0.8, the highest.
    np.testing.assert_allclose(found[3:], [[1 / 3, 2 / 3, 1], [0, 1 / 6, 1 / 3]], atol=1e-12)

    drawn = {tuple(np.round(line.get_path().vertices[::3, 1], 9)) for line in lines(models_figure(models))}
    assert drawn == {tuple(np.round(heights, 9)) for heights in found.T}
    for line in lines(models_figure(models)):
        path = line.get_path()
        assert list(path.codes) == [Curve.MOVETO] + 12 * [Curve.CURVE4]
        np.testing.assert_array_equal(path.vertices[::3, 0], range(5))
        for axis in range(4):
            start, leaving, arriving, end = path.vertices[3 * axis : 3 * axis + 4]
            assert (leaving[1], arriving[1]) == (start[1], end[1])


def test_the_scores_are_those_of_the_epoch_that_training_keeps(tmp_path):
    # Another epoch is better on the test images, another on the training images; of two alike it is the later.
    epochs = [(0.2, 0.3, 0.9), (0.5, 0.7, 0.4), (0.6, 0.7, 0.5), (0.9, 0.6, 0.6)]
    save_run(tmp_path / "a", options(learning_rate=0.01), epochs)
    model = read_models([tmp_path / "a"])[0]
    assert model.value("epoch") == 3
    assert [model.value(f"{split}_f1_macro") for split in ("train", "validation", "test")] == [0.6, 0.7, 0.5]
    assert model.value("learning_rate") == 0.01


def test_the_best_is_chosen_by_validation_drawn_on_top_thicker_and_named(tmp_path):
    save_run(tmp_path / "best-on-test", options(), [(0.9, 0.6, 0.9)])
    save_run(tmp_path / "best", options(), [(0.8, 0.7, 0.8)])
    save_run(tmp_path / "last", options(), [(0.5, 0.5, 0.5)])
    models = read_models([tmp_path])
    assert best_model(models).name == "best"
    figure = models_figure(models)
    *others, top = lines(figure)
    np.testing.assert_array_equal(top.get_path().vertices[::3, 1], [a.heights[0] for a in value_axes(models)])
    assert top.get_linewidth() > 2 * max(line.get_linewidth() for line in others)
    assert figure.legends[0].get_texts()[0].get_text() == "best by validation F1: best (validation 0.700, test 0.800)"


def test_what_is_missing_lies_below_the_axis_and_is_said_there(tmp_path):
    save_run(tmp_path / "a", options(), [(0.5, 0.5, 0.5)])
    save_run(tmp_path / "b", options(), [(0.6, 0.6, 0.6)])
    assert not any("missing" in [text.get_text() for text in labels(models_figure(read_models([tmp_path])), i)]
                   for i in range(5))  # fmt: skip
    _, scores = save_baseline(tmp_path / "baseline")
    save_run(tmp_path / "diverged", options(learning_rate=10), [])
    models = read_models([tmp_path])
    heights = np.stack([axis.heights for axis in value_axes(models)], axis=1)
    _, _, baseline, diverged = heights
    assert list(baseline == MISSING) == [True, True, True, False, False]
    assert list(diverged == MISSING) == [False, False, False, True, True]
    assert (np.delete(heights, np.s_[2:], axis=0) >= 0).all()
    assert models[2].value("test_f1_macro") == scores["test"]
    figure = models_figure(models)
    for place in range(5):
        assert [text.get_text() for text in labels(figure, place)].count("missing") == 1


random = np.random.default_rng(0)
RATES = {
    "one": [1e-3],
    "equal": [1e-3] * 3,
    "nearly equal": [1e-3, 1.001e-3, 1e-3 * (1 + 1e-9), 1e-1],
    "apart in the last digits only": [1e-3, 1e-3 * (1 + 1e-12)],
    "close together between others": [1e-5, *np.geomspace(1e-3, 1.2e-3, 7), 1e-1],
    "many": list(10 ** random.uniform(-5, -1, 60)),
    "many in less than a decade": list(random.uniform(2.1e-3, 2.3e-3, 60)),
}


@pytest.mark.slow
@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_no_two_labels_of_an_axis_overlap_and_none_is_cut_off(tmp_path, rates):
    for place, rate in enumerate(rates):
        f1 = random.uniform(0.2, 1, 3)
        config = options(int(rate * 1e6) or 1, float(rate), float(rate / 2))
        save_run(tmp_path / str(place), config, [] if place == 5 else [tuple(map(float, f1))])
    figure = models_figure(read_models([tmp_path]))
    figure.draw_without_rendering()
    page = figure.bbox
    for place in range(5):
        texts = labels(figure, place)
        assert texts
        assert not overlapping(texts)
        assert len({text.get_text() for text in texts}) == len(texts)
        for text in texts:
            box = text.get_window_extent()
            assert page.x0 <= box.x0 < box.x1 <= page.x1
    titles = [text for text in figure.axes[0].texts if text.get_text() in AXES]
    assert len(titles) == 5
    assert not overlapping([*titles, *labels(figure, 1), *labels(figure, 2), *labels(figure, 3)])


def test_few_values_are_all_labelled_and_many_have_round_numbers(tmp_path):
    save_grid(tmp_path)
    ticks = {axis.title: [label for _, label in axis.ticks] for axis in value_axes(read_models([tmp_path]))}
    assert ticks["batch size"] == ["8", "64"]
    assert ticks["learning rate"] == ["1e-5", "0.003", "0.1"]
    assert ticks["dropout"] == ["0", "0.1", "0.5"]
    for place, rate in enumerate(np.geomspace(1.1e-4, 0.9e-2, 30)):
        save_run(tmp_path / f"more-{place}", options(learning_rate=float(rate)), [(0.5, 0.5, 0.5)])
    ticks = {axis.title: [label for _, label in axis.ticks] for axis in value_axes(read_models([tmp_path]))}
    assert {"1e-5", "0.0001", "0.001", "0.01", "0.1"} <= set(ticks["learning rate"])


@pytest.mark.slow
def test_the_command_takes_sweeps_and_runs_each_once(tmp_path, monkeypatch, capsys):
    first, second = save_grid(tmp_path / "first"), tmp_path / "second"
    # The same name in both, an underscore that would hide a legend, and what would be mathematics.
    save_run(second / "model-00", options(), [(1.0, 1.0, 1.0)])
    save_run(tmp_path / r"_$\frac$", options(), [(0.5, 0.5, 0.5)])
    folders = [first, second, tmp_path / r"_$\frac$", first / "model-00"]
    assert [model.name for model in read_models(folders)].count("second/model-00") == 1
    assert len(read_models(folders)) == 16
    assert draw(monkeypatch, "models", *folders) == 0
    assert capsys.readouterr().out == f"{first / 'figures' / 'models.png'}\n"
    with Image.open(first / "figures" / "models.png") as image:
        assert min(image.size) > 400
    assert draw(monkeypatch, "models", tmp_path / r"_$\frac$", "--out", tmp_path / "one.svg") == 0


def test_wrong_input_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    save_run(tmp_path / "young" / "run", options(), [])
    for words, message in [
        (["models"], "name at least one run folder or sweep"),
        (["models", tmp_path / "missing"], "missing: no run folder"),
        (["models", tmp_path / "empty"], "empty: no run folder in it"),
        (["report", tmp_path / "empty"], "empty: no run folder in it"),
        (["report", tmp_path / "young"], "young: no run has scores yet"),
        (["report", tmp_path / "young" / "run"], "run: no run has scores yet"),
        (["report", tmp_path / "young", "--out", "report.png"], "young: no run has scores yet"),
        (["learning-curves", tmp_path / "young"], "young: no run has finished an epoch yet"),
        (["confusion-matrices", tmp_path / "young"], "young: no run of the sweep has scores yet"),
    ]:
        assert draw(monkeypatch, *words) == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert shown.count("\n") == 1
    assert not list(tmp_path.rglob("figures"))
