"""A report on a sweep as one HTML file, which can be sent and needs no network."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, to_hex
from matplotlib.figure import Figure

from figures.confusion_matrices import confusion_matrices_figure
from figures.ensembles import ensembles_html
from figures.external_data import external_table_html
from figures.learning_curves import learning_curves_figure, read_learning_curves
from figures.reliability import reliability_figure
from figures.report_facts import facts_html
from figures.report_table import chart_json, headers_html, in_order, rows_html
from figures.risk_coverage import risk_coverage_of
from figures.roc_curves import roc_curves_figure
from figures.run_folders import Folders
from figures.run_title import run_title
from figures.saving import save_page
from figures.score_colours import ON_BLACK, ON_WHITE, score_range
from figures.scored_models import Model, best_model, read_models
from jaxcnn.errors import UserError
from jaxcnn.evaluation import fit_temperature
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.runs.folder import SPLITS, read_splits


def report_page(title: str, models: Sequence[Model]) -> str:
    """The HTML5 page; at least one of the models has scores."""
    models = in_order(models)
    best = best_model(models)
    assert best is not None
    within = score_range([model.value("test_f1_macro") for model in models])
    style = Template(_resource("report.css")).substitute(
        colours_on_white=_gradient(ON_WHITE), colours_on_black=_gradient(ON_BLACK)
    )
    script = _resource("report.js")
    return Template(_resource("report.html")).substitute(
        title=escape(title),
        lead=_lead(models, best),
        facts=facts_html(models),
        lowest=f"{within.vmin:.3f}",
        highest=f"{within.vmax:.3f}",
        headers=headers_html(),
        rows=rows_html(models),
        pictures=_pictures(models, best),
        data=chart_json(models),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _resource(name: str) -> str:
    return (files("figures") / name).read_text(encoding="utf-8")


def _gradient(colours: Colormap) -> str:
    return ", ".join(to_hex(colour) for colour in colours(np.linspace(0, 1, 9)))


def _lead(models: Sequence[Model], best: Model) -> str:
    scores = ", ".join(f"{split} {best.value(f'{split}_f1_macro'):.3f}" for split in SPLITS)
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    return f"{count}. The best by validation F1 is <strong>{escape(best.name)}</strong>: macro F1 {scores}."


def _pictures(models: Sequence[Model], best: Model) -> str:
    sections = []
    predictions = read_splits(best.run, [split for split in SPLITS if best.run.predictions(split).exists()])
    if curves := read_learning_curves({model.name: model.run for model in models}):
        picture = _picture(
            learning_curves_figure(curves),
            "Loss and macro F1 over the epochs on training and test images, one line per model",
        )
        sections.append(_section("Learning curves", picture))
    if table := ensembles_html(models):
        sections.append(_section("One model, the mean of the seeds, and their ensemble", table))
    sections.append(_section(f"The best model: {best.name}", _pictures_of_best(best, predictions)))
    if table := external_table_html(best.run):
        sections.append(_section(f"The best model on other data sets: {best.name}", table))
    return "\n".join(sections)


def _pictures_of_best(best: Model, predictions: Mapping[str, Predictions]) -> str:
    if not {"train", "test"} <= predictions.keys():
        return f"<p>There are no predictions yet, because the run {escape(best.run.name)} hasn’t ended.</p>"
    train, test = predictions["train"], predictions["test"]
    matrices = confusion_matrices_figure({"train": train.confusion(), "test": test.confusion()}, test.classes)
    parts = [
        "<h3>Confusion matrices</h3>",
        _picture(matrices, "Confusion matrices on training and test images: counts and shares of each true class"),
        "<h3>Reliability</h3>",
        _reliability(best, predictions),
        "<h3>Risk and coverage</h3>",
        _picture(risk_coverage_of(best.run.folder), "Share of wrong answers by the share of test images answered"),
        "<h3>ROC curves</h3>",
        _roc(best, test),
    ]
    return "\n".join(parts)


def _reliability(best: Model, predictions: Mapping[str, Predictions]) -> str:
    if "validation" not in predictions:
        return "<p>There are no predictions of validation images to fit a temperature on.</p>"
    validation, test = predictions["validation"], predictions["test"]
    try:
        temperature = fit_temperature(validation.logits, validation.labels)
    except ValueError as error:
        return f"<p>A temperature can’t be fitted on the validation images: {escape(str(error))}.</p>"
    figure = reliability_figure(test.logits, test.labels, temperature, run_title(best.run))
    return _picture(figure, "Accuracy by confidence, before and after temperature scaling")


def _roc(best: Model, test: Predictions) -> str:
    if len(np.unique(test.labels)) < 2:
        return "<p>All test images have the same class; ROC curves need two classes.</p>"
    figure = roc_curves_figure(test.logits, test.labels, test.classes, run_title(best.run))
    return _picture(figure, "ROC curves of the classes, each against all others")


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>"


def _picture(figure: Figure, description: str) -> str:
    """The figure as an image element that contains its data, so its identifiers and styles stay separate."""
    written = io.BytesIO()
    # Otherwise the identifiers would be random, and the page different each time.
    with mpl.rc_context({"svg.hashsalt": "jaxcnn"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(written.getvalue()).decode()
    width = round(96 * figure.get_figwidth())
    return (
        f'<figure><img width="{width}" height="{round(96 * figure.get_figheight())}" alt="{escape(description)}"'
        f' src="data:image/svg+xml;base64,{encoded}"></figure>'
    )


def report(folders: Folders, out: Path | None = None) -> None:
    """Write an HTML page about runs or sweeps: table, interactive chart, learning curves, and figures of the best one.

    Args:
        folders: Sweep folders or run folders.
        out: File of the page; figures/report.html in the first folder if not given.
    """
    models = read_models(folders)
    if best_model(models) is None:
        raise UserError(f"{folders[0]}: no run has scores yet; wait until one has finished an epoch")
    title = ", ".join(dict.fromkeys(folder.resolve().name for folder in folders))
    save_page(report_page(title, models), out or folders[0] / "figures" / "report.html")
