"""Learning curves and confusion matrices, from runs written here."""

import contextlib
from itertools import pairwise

import matplotlib.colors
import numpy as np
import pytest
from figures_command import draw
from PIL import Image
from scored_runs import DATA, ENVIRONMENT, epoch_line, options, save_grid, save_run

from figures.confusion_matrices import confusion_matrices_figure
from figures.learning_curves import learning_curves_figure
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.folder import create_run, read_epochs, write_epochs, write_predictions
from jaxcnn.runs.lock import lock_run

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
COLUMNS = ("train_loss", "test_loss", "train_f1_macro", "test_f1_macro")


def epochs(count):
    random = np.random.default_rng(count)
    return [epoch_line(i + 1, (0, 0, 0)) | {column: random.uniform() for column in COLUMNS} for i in range(count)]


@pytest.fixture
def run(tmp_path):
    run = create_run(tmp_path / "my-run", {}, DATA, ENVIRONMENT, overwrite=False)
    write_epochs(run, epochs(3))
    logits = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    labels = np.arange(20, dtype=np.int32) % 3  # no image of the last class
    for split in ("train", "test"):
        write_predictions(run, split, Predictions(logits, labels, np.arange(20), ("x",) * 20, CLASSES))
    return run


def test_every_run_is_a_named_line_through_its_own_values():
    runs = {"a": epochs(3), "b": epochs(5)}
    figure = learning_curves_figure(runs)
    assert len(figure.axes) == 4
    for panel, column in zip(figure.axes, COLUMNS, strict=True):
        for line, (name, values) in zip(panel.get_lines(), runs.items(), strict=True):
            assert line.get_label() == name
            assert list(line.get_ydata()) == [epoch[column] for epoch in values]
            # Nothing is drawn outside the panel.
            low, high = panel.get_ylim()
            assert low <= min(line.get_ydata()) <= max(line.get_ydata()) <= high
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def scored(count, best):
    """Epochs of which the one in the middle has the validation F1 `best`."""
    return [line | {"validation_f1_macro": best / (1 + abs(i - 1)), "validation_loss": 1.0}
            for i, line in enumerate(epochs(count))]  # fmt: skip


def test_more_runs_than_colours_are_coloured_and_named_by_their_rank():
    order = np.random.default_rng(0).permutation(30)
    figure = learning_curves_figure({f"run-{place:02}": scored(3, best=(place + 1) / 30) for place in order})
    ranked = [f"run-{place:02}" for place in range(29, -1, -1)]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ranked
    assert [text.get_fontweight() for text in legend.get_texts()].count("bold") == 3
    lines = figure.axes[0].get_lines()
    assert len({line.get_color().tobytes() for line in lines}) == 30
    lightness = [np.dot(line.get_color()[:3], [0.2126, 0.7152, 0.0722]) for line in lines]
    assert lightness == sorted(lightness)  # the best are the darkest on white paper
    assert all(a.get_zorder() > b.get_zorder() for a, b in pairwise(lines))
    assert [line.get_linewidth() > 2 for line in lines].count(True) == 3
    # The legend has room below the panels.
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert figure.bbox.y0 <= box.y0
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= min(panel.get_tightbbox().y0 for panel in figure.axes)


@pytest.mark.slow
def test_of_very_many_runs_the_best_are_named():
    figure = learning_curves_figure({str(place): scored(1, best=(place + 1) / 60) for place in range(60)})
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [str(place) for place in range(59, 19, -1)]
    assert legend.get_title().get_text() == "60 models, the best by validation F1 first; the last 20 are not named"
    # A line of one point would be invisible without a marker.
    assert {line.get_marker() for line in figure.axes[0].get_lines()} == {"."}


def test_one_run_that_explodes_does_not_press_the_others_together():
    runs = {name: scored(4, best=0.5) for name in "abc"}
    assert learning_curves_figure(runs).axes[0].get_yscale() == "linear"
    runs["c"][2] |= {"test_loss": 1e4}
    runs["b"][2] |= {"test_loss": float("nan"), "train_loss": float("inf")}
    figure = learning_curves_figure(runs)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert figure.axes[0].get_yscale() == "log"
    assert low < 1 < 1e4 < high < 1e6


def test_a_sweep_stands_for_its_runs_and_for_its_best_one(tmp_path, monkeypatch, capsys):
    sweep = save_grid(tmp_path / "sweep")
    drawn = []
    for name in ("learning_curves", "confusion_matrices"):
        monkeypatch.setattr(f"figures.{name}.save_figure", lambda figure, path: drawn.append((figure, path)))
        assert draw(monkeypatch, name.replace("_", "-"), sweep) == 0
    (curves, curves_path), (matrices, matrices_path) = drawn
    assert curves_path == sweep / "figures" / "learning-curves.png"
    assert matrices_path == sweep / "figures" / "confusion-matrices.png"
    # Neither the baseline nor the run that diverged at once has an epoch.
    names = [text.get_text() for text in curves.legends[0].get_texts()]
    assert sorted(names) == [f"model-{place:02}" for place in range(12)]
    assert matrices.get_suptitle() == "model-11, protocol leak-free"

    save_run(tmp_path / "young", options(), [])
    assert draw(monkeypatch, "learning-curves", sweep, tmp_path / "young") == 2
    assert "young/metrics.jsonl: no epoch is finished yet" in capsys.readouterr().err


def test_every_cell_shows_its_count_and_its_share_of_the_row():
    confusion = np.array([[8, 2, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 200]])
    panel = confusion_matrices_figure({"test": confusion}, CLASSES).axes[0]
    cells = [text.get_text() for text in panel.texts]
    assert cells[:4] == ["8\n80%", "2\n20%", "0\n0%", "0\n0%"]
    assert cells[4:8] == ["0\n–"] * 4  # a class without images has no shares, and divides nothing by zero
    assert cells[8:12] == ["1\n25%"] * 4
    assert panel.get_title() == "test (214 images)"


def test_text_is_readable_on_every_colour_of_the_map():
    confusion = np.stack([[share, 100 - share] for share in range(0, 101, 5)])
    matrix = np.zeros((21, 21), int)
    matrix[:, :2] = confusion
    panel = confusion_matrices_figure({"x": matrix}, tuple(map(str, range(21)))).axes[0]
    image = panel.images[0]
    for text, share in zip(panel.texts, (matrix / 100).ravel(), strict=True):
        assert contrast(text.get_color(), image.to_rgba(share)) >= 4.5  # WCAG 2.2, level AA


def contrast(colour, other):
    def luminance(c):
        rgb = np.array(matplotlib.colors.to_rgb(c))
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(colour), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["learning-curves", "confusion-matrices"])
def test_the_command_writes_a_picture_and_prints_where(run, monkeypatch, capsys, name):
    assert draw(monkeypatch, name, run.folder) == 0
    path = run.figures / f"{name}.png"
    assert capsys.readouterr().out == f"{path}\n"
    with Image.open(path) as image:
        assert min(image.size) > 400


@pytest.mark.slow
def test_the_same_run_gives_the_same_picture(run, monkeypatch, tmp_path):
    for name in ("a", "b"):
        assert draw(monkeypatch, "learning-curves", run.folder, "--out", tmp_path / f"{name}.png") == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learning-curves", "/no/such/run"], "/no/such/run: no run folder"),
        (["confusion-matrices", "/no/such/run"], "/no/such/run: no run folder"),
        (["learning-curves"], "name at least one run folder"),
        (["pie-chart"], "pie-chart"),
        (["learning-curves", "RUN", "--out", "curves.docx"], "--out curves.docx: unknown suffix; choose one of"),
        (["learning-curves", "RUN", "--out", "/dev/null/curves.png"], "--out /dev/null/curves.png: can't be written"),
    ],
)
def test_wrong_input_is_told_in_one_line(run, monkeypatch, capsys, arguments, message):
    arguments = [run.folder if argument == "RUN" else argument for argument in arguments]
    assert draw(monkeypatch, *arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_a_run_without_results_yet_says_so(tmp_path, monkeypatch, capsys):
    run = create_run(tmp_path / "young", {}, {}, {}, overwrite=False)
    assert draw(monkeypatch, "learning-curves", run.folder) == 2
    assert "no epoch is finished yet" in capsys.readouterr().err
    assert draw(monkeypatch, "confusion-matrices", run.folder) == 2
    assert "finish the run first" in capsys.readouterr().err
    assert not run.figures.exists()


def test_a_run_that_trains_is_followed_and_drawn_after_each_epoch(tmp_path, monkeypatch):
    run = create_run(tmp_path / "run", {}, DATA, ENVIRONMENT, overwrite=False)
    drawn = []
    monkeypatch.setattr("figures.learning_curves.save_figure", lambda figure, _: drawn.append(figure))
    training = contextlib.ExitStack()
    training.enter_context(lock_run(run))
    # What happens in the pauses: nothing, an epoch, nothing, another one, the last one and the end of the training.
    pauses = iter([lambda: None, *(lambda n=n: write_epochs(run, epochs(3)[:n]) for n in (1, 1, 2, 3))])

    def pause(_):
        next(pauses)()
        if len(read_epochs(run)) == 3:
            training.close()

    monkeypatch.setattr("figures.learning_curves.time.sleep", pause)
    assert draw(monkeypatch, "learning-curves", run.folder, "--follow") == 0
    assert [len(figure.axes[0].get_lines()[0].get_xdata()) for figure in drawn] == [1, 2, 3]
    assert draw(monkeypatch, "learning-curves", run.folder, "--follow") == 0
    assert len(drawn) == 4  # Nobody trains it any more.
