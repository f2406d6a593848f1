"""The runs of a report that differ in their seed alone: one of them, their mean, and what they say together."""

import json
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from figures.scored_models import Model, best_model
from jaxcnn.evaluation import Estimates, estimate, mean_estimates
from jaxcnn.evaluation.predictions import Predictions, ensemble
from jaxcnn.runs.folder import read_predictions

_MEASURES = {"f1_macro": "macro F1", "accuracy": "accuracy", "log_loss": "log loss", "calibration_error": "calibration"}


def ensembles_html(models: Sequence[Model]) -> str:
    """A table for each group of at least two runs that have ended, with the same test images; "" without any."""
    groups: dict[str, list[Model]] = {}
    for model in models:
        if model.run.predictions("test").exists() and "seed" in model.config:
            setting = {name: value for name, value in model.config.items() if name != "seed"}
            groups.setdefault(json.dumps(setting, sort_keys=True), []).append(model)
    return "\n".join(_table(group) for group in groups.values() if len(group) > 1)


def _table(models: Sequence[Model]) -> str:
    tested = [read_predictions(model.run, "test") for model in models]
    if any(of.names != tested[0].names for of in tested):
        return ""
    best = best_model(models) or models[0]
    rows = _rows(dict(zip((model.name for model in models), tested, strict=True)), best.name)
    head = "".join(f'<th scope="col">{title}</th>' for title in ("test images", *_MEASURES.values()))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(_cell(found, measure) for measure in _MEASURES) + "</tr>"
        for name, found in rows.items()
    )
    return f'<div class="scrolling"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _rows(tested: Mapping[str, Predictions], best: str) -> dict[str, Estimates]:
    each = {name: estimate(of) for name, of in tested.items()}
    return {
        best: each[best],
        f"mean of {len(each)} seeds": mean_estimates(list(each.values())),
        f"ensemble of {len(each)} seeds": estimate(ensemble(list(tested.values()))),
    }


def _cell(found: Estimates, measure: str) -> str:
    value, low, high = (float(np.squeeze(of)) for of in vars(found.of(measure)).values())
    return f'<td class="number">{value:.3f} [{low:.3f}, {high:.3f}]</td>'
