"""The runs of a report that differ in their seed alone: one of them, their mean, and what they say together."""

import json
from collections.abc import Sequence

from figures.report_table import table_html, with_interval
from figures.scored_models import Model, best_model
from jaxcnn.evaluation import estimate, mean_estimates
from jaxcnn.evaluation.predictions import ensemble
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
    each = {model.name: estimate(of) for model, of in zip(models, tested, strict=True)}
    rows = {
        best.name: each[best.name],
        f"mean of {len(each)} seeds": mean_estimates(list(each.values())),
        f"ensemble of {len(each)} seeds": estimate(ensemble(tested)),
    }
    cells = {name: [with_interval(found, measure) for measure in _MEASURES] for name, found in rows.items()}
    return table_html(("test images", *_MEASURES.values()), cells)
