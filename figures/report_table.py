"""The tables of a report, and the models as data for its chart."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from figures.score_colours import ON_BLACK, ON_WHITE, score_colour, score_range
from figures.scored_models import Model, best_model
from figures.value_axes import number, value_axes
from jaxcnn.evaluation import Estimates

# Titles by quantity; see Model.value.
_NUMBERS = {
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "dropout": "dropout",
    "epoch": "best epoch",
    "train_f1_macro": "train F1",
    "validation_f1_macro": "validation F1",
    "test_f1_macro": "test F1",
    "test_f1_weighted": "weighted test F1",
}
_ORDER = "validation_f1_macro"


def in_order(models: Sequence[Model]) -> list[Model]:
    """Sorted by validation F1, the highest first and missing ones last: the order of the table on a new page."""
    return sorted(models, key=lambda model: np.nan_to_num(-model.value(_ORDER), nan=math.inf))


def headers_html() -> str:
    """One cell per column, with the button that sorts by it."""
    texts = "".join(f'<th scope="col"><button type="button">{title}</button></th>' for title in ("model", "kind"))
    sort = {_ORDER: ' aria-sort="descending"'}
    return texts + "".join(
        f'<th scope="col" class="number"{sort.get(quantity, "")}><button type="button">{title}</button></th>'
        for quantity, title in _NUMBERS.items()
    )


def rows_html(models: Sequence[Model]) -> str:
    """One row per model; each cell has the value that it is sorted by, which is empty if it is missing."""
    best = best_model(models)
    return "\n".join(_row(model, model is best) for model in models)


def _row(model: Model, best: bool) -> str:
    name, kind = escape(model.name), escape(model.kind)
    cells = "".join(_number_cell(model.value(quantity), quantity) for quantity in _NUMBERS)
    best_class = ' class="best"' if best else ""
    return (
        f'<tr tabindex="0"{best_class}>'
        f'<th scope="row" data-value="{name}">{name}</th><td data-value="{kind}">{kind}</td>{cells}</tr>'
    )


def _number_cell(value: float, quantity: str) -> str:
    if not math.isfinite(value):
        return '<td class="number" data-value="">–</td>'
    text = f"{value:.3f}" if "_f1_" in quantity else number(value)
    return f'<td class="number" data-value="{value!r}">{text}</td>'


def table_html(titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table that isn't sorted: the titles of its columns, and the cells of each row by the row's name."""
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="number">{cell}</td>' for cell in cells)
        + "</tr>"
        for name, cells in rows.items()
    )
    return f'<div class="scrolling"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def with_interval(found: Estimates, measure: str) -> str:
    """A measure and its 95% interval, as a cell."""
    of = found.of(measure)
    return f"{float(of.value):.3f} [{float(of.low):.3f}, {float(of.high):.3f}]"


def chart_json(models: Sequence[Model]) -> str:
    """The data of the chart, in the order of the models, safe inside a script element."""
    axes, best = value_axes(models), best_model(models)
    scores = [model.value("test_f1_macro") for model in models]
    within = score_range(scores)
    content = {
        "axes": [{"title": axis.title, "ticks": axis.ticks} for axis in axes],
        "models": [
            {
                "name": model.name,
                "heights": [round(float(axis.heights[place]), 5) for axis in axes],
                "colours": [score_colour(score, within, colours) for colours in (ON_WHITE, ON_BLACK)],
                "score": score if math.isfinite(score) else None,
                "best": model is best,
            }
            for place, (model, score) in enumerate(zip(models, scores, strict=True))
        ],
    }
    # No "</script>" and no "<!--" in a name may end the element.
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")
