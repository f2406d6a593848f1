"""What a run says of other data sets than its own, as `python -m train evaluate RUN --data OTHER` has left it there."""

from figures.report_table import table_html, with_interval
from jaxcnn.errors import UserError
from jaxcnn.evaluation import estimate
from jaxcnn.runs.folder import EXTERNAL, UNSEEN, Run, read_predictions

_MEASURES = {"accuracy": "accuracy", "f1_macro": "macro F1", "auc_macro": "macro ROC AUC"}


def external_sets(run: Run) -> list[str]:
    """Names of the data sets; those without copies of training images end with -unseen."""
    return sorted(path.stem for path in (run.predictions("").parent / EXTERNAL).glob("*.npz") if path.name[0] != ".")


def choose_images(run: Run, data: str | None) -> tuple[str, str]:
    """The predictions to draw, and what the images are called: the test images, or those of a data set of this name.

    Raises:
        UserError: the run has no predictions for that.
    """
    if data is None:
        return "test", "test images"
    known = external_sets(run)
    if data not in known:
        there = f"; it has some for {', '.join(known)}" if known else ""
        raise UserError(
            f"--data {data}: {run.folder} has no predictions for it{there}; python -m train evaluate"
            f" {run.folder} --data FOLDER makes them"
        )
    return f"{EXTERNAL}/{data}", f"images of {data}".replace("$", r"\$")


def external_table_html(run: Run) -> str:
    """A row a data set: its images, and scores with their intervals; "" where the run has been scored on none."""
    names = external_sets(run)
    if not names:
        return ""
    rows = {}
    for name in names:
        known = " without copies of training images" if name.endswith(UNSEEN) else ""
        predictions = read_predictions(run, f"{EXTERNAL}/{name}")
        found = estimate(predictions)
        scores = [with_interval(found, measure) for measure in _MEASURES]
        rows[name.removesuffix(UNSEEN) + known] = [str(len(predictions.labels)), *scores]
    return table_html(("data set", "images", *_MEASURES.values()), rows)
