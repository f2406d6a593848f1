"""The reliability diagram and the ROC curves show what scikit-learn finds in the same predictions."""

import numpy as np
import pytest
from figures_command import draw
from PIL import Image
from scipy.special import softmax
from scored_runs import DATA, ENVIRONMENT
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, roc_auc_score

from figures.reliability import reliability_figure
from figures.risk_coverage import risk_coverage_of
from figures.roc_curves import roc_curves_figure
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.folder import create_run, write_predictions, write_unlike

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


def random_predictions(seed, labels=None):
    random = np.random.default_rng(seed)
    labels = np.arange(200, dtype=np.int32) % 4 if labels is None else labels
    logits = 2 * (random.normal(size=(len(labels), 4)) + np.eye(4)[labels])
    return logits.astype(np.float32), labels


def make_run(folder, validation, test):
    run = create_run(folder, {}, DATA | {"protocol": "official"}, ENVIRONMENT, overwrite=False)
    for split, (logits, labels) in {"validation": validation, "test": test}.items():
        names = tuple(map(str, range(len(labels))))
        write_predictions(run, split, Predictions(logits, labels, np.arange(len(labels)), names, CLASSES))
    return run


def test_bars_are_the_accuracy_and_the_images_of_each_bin_before_and_after_scaling():
    logits, labels = random_predictions(0)
    figure = reliability_figure(logits, labels, 2.0, "a, protocol official")
    for (upper, lower), values in zip(np.array(figure.axes).reshape(2, 2).T, (logits, logits / 2), strict=True):
        p = softmax(values.astype(np.float64), axis=1)
        right, confidence = p.argmax(axis=1) == labels, p.max(axis=1)
        accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=15)
        counts = np.histogram(confidence, bins=15, range=(0, 1))[0]
        full = counts > 0
        np.testing.assert_allclose([bar.get_height() for bar in upper.patches], accuracy)
        middles = (np.arange(15)[full] + 0.5) / 15
        np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in upper.patches], middles)
        np.testing.assert_allclose(upper.lines[-1].get_xdata(), mean_confidence)
        assert [text.get_text() for text in lower.texts] == [str(count) for count in counts[full]]
        error = counts[full] @ np.abs(accuracy - mean_confidence) / 200
        assert upper.get_title().endswith(f"(ECE) {error:.3f}")
    assert figure.get_suptitle() == "a, protocol official, 200 test images"


def test_each_line_has_the_area_that_the_legend_tells():
    logits, labels = random_predictions(1)
    panel = roc_curves_figure(logits, labels, CLASSES, "a").axes[0]
    p = softmax(logits.astype(np.float64), axis=1)
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    areas = [roc_auc_score(labels == c, p[:, c]) for c in range(4)]
    for place, name in enumerate(("glioma", "meningioma", "no tumor", "pituitary")):
        line = panel.get_lines()[place]
        assert auc(line.get_xdata(), line.get_ydata()) == pytest.approx(areas[place])
        assert names[place] == f"{name}: {areas[place]:.3f}"
    assert panel.figure.get_suptitle() == f"a, 200 test images\nmacro ROC AUC {np.mean(areas):.3f}"
    # Told apart without colours, too.
    assert len({line.get_linestyle() for line in panel.get_lines()[:4]}) == 4


def test_a_class_without_images_has_a_dash():
    logits, labels = random_predictions(2, np.arange(60, dtype=np.int32) % 3)
    panel = roc_curves_figure(logits, labels, CLASSES, "a").axes[0]
    assert panel.get_legend().get_texts()[3].get_text() == "pituitary: –"
    assert len(panel.get_lines()[3].get_xdata()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reliability", "roc-curves"])
def test_the_command_writes_a_picture_and_prints_where(tmp_path, monkeypatch, capsys, name):
    run = make_run(tmp_path / "my-run", random_predictions(0), random_predictions(1))
    for out in ([], ["--out", tmp_path / "elsewhere.png"]):
        assert draw(monkeypatch, name, run.folder, *out) == 0
    path = run.figures / f"{name}.png"
    assert capsys.readouterr().out == f"{path}\n{tmp_path / 'elsewhere.png'}\n"
    assert path.read_bytes() == (tmp_path / "elsewhere.png").read_bytes()
    with Image.open(path) as image:
        assert min(image.size) > 800


@pytest.mark.slow
def test_the_temperature_is_fitted_on_the_validation_images(tmp_path, monkeypatch):
    logits, labels = random_predictions(0)
    shown = []

    def keep(logits, labels, temperature, *titles):
        shown.append(temperature)
        return reliability_figure(logits, labels, temperature, *titles)

    monkeypatch.setattr("figures.reliability.reliability_figure", keep)
    for factor in (1, 3):
        run = make_run(tmp_path / str(factor), (factor * logits, labels), random_predictions(1))
        assert draw(monkeypatch, "reliability", run.folder) == 0
    assert shown[1] == pytest.approx(3 * shown[0], rel=1e-4)


def test_wrong_input_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    labels = np.arange(8, dtype=np.int32) % 4
    perfect = (np.eye(4, dtype=np.float32)[labels], labels)
    of_one_class = random_predictions(0, np.zeros(9, np.int32))
    right = make_run(tmp_path / "right", perfect, perfect).folder
    uniform = make_run(tmp_path / "uniform", perfect, of_one_class).folder
    for words, message in [
        (["reliability", "/no/such/run"], "/no/such/run: no run folder"),
        (["roc-curves", "/no/such/run"], "/no/such/run: no run folder"),
        (["reliability", right], "right: a temperature can't be fitted on its validation images"),
        (["roc-curves", uniform], "test.npz: all images have the same class; ROC curves need two classes"),
        (["roc-curves", right, "--out", "curves.docx"], "--out curves.docx: unknown suffix"),
    ]:
        assert draw(monkeypatch, *words) == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert shown.count("\n") == 1


def test_the_risk_is_that_of_the_images_that_are_doubted_least(tmp_path, monkeypatch):
    logits, labels = random_predictions(2)
    run = make_run(tmp_path / "run", random_predictions(3), (logits, labels))
    panel = risk_coverage_of(run.folder).axes[0]
    assert len(panel.lines) == 1
    unlike = np.random.default_rng(0).uniform(0, 2, 200).astype(np.float32)
    write_unlike(run, {"test": unlike})
    by_probability, by_unlike, threshold = risk_coverage_of(run.folder).axes[0].lines
    right = logits.argmax(axis=1) == labels
    for line, doubt in ((by_probability, -softmax(logits, axis=1).max(axis=1)), (by_unlike, unlike)):
        for share in (0.1, 0.5, 1):
            chosen = doubt <= np.sort(doubt)[round(200 * share) - 1]
            place = np.argmin(abs(line.get_xdata() - share))
            assert line.get_ydata()[place] == pytest.approx(1 - right[chosen].mean())
    assert threshold.get_xdata()[0] == pytest.approx((unlike <= 1).mean())
    assert draw(monkeypatch, "risk-coverage", run.folder) == 0
    assert (run.folder / "figures" / "risk-coverage.png").is_file()
    write_unlike(run, {"test": unlike[1:]})
    with pytest.raises(UserError, match="is of other test images"):
        risk_coverage_of(run.folder)
