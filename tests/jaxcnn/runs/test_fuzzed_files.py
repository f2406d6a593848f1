"""Files of a run folder with anything changed in them: what is read can be used, or one line names the file.

`make fuzz` tries many times as much.
"""

import copy
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import MANY, mutated, read_or_refused
from random_run import random_trained, save_random_run
from scored_runs import DATA, ENVIRONMENT, options, save_predictions

from figures.report_facts import facts_html
from figures.scored_models import Model, read_models
from jaxcnn import SimpleCNN
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.errors import UserError
from jaxcnn.evaluation import measures
from jaxcnn.inference.export import serialize_classifier
from jaxcnn.inference.exported import load_exported
from jaxcnn.inference.trained import load_trained
from jaxcnn.runs.folder import Run, best_epoch, read_epochs, read_predictions
from jaxcnn.runs.json_files import json_text, write_json
from train.sweep.folder import SweepFolder, create_or_resume, read_diverged

pytestmark = pytest.mark.fuzz

SWEEP = {"options": {"model": "simplecnn"}, "grid": {"seed": [0, 1]}, "random": None, "models": ["00-seed=0"]}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers().map(lambda power: 10 ** (power % 400))
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "\udcff", "../..", "$\\", "none", [], {}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model = SimpleCNN(stem_features=(2, 2), squeeze_features=2, skip_features=2, head_features=2, hidden_features=2)
    folder = save_random_run(tmp_path_factory.mktemp("runs") / "run", random_trained(model, 50))
    for name, content in (("config", options()), ("data", DATA), ("environment", ENVIRONMENT), ("sweep", SWEEP)):
        write_json(folder / f"{name}.json", content)
    write_json(folder / "diverged.json", {"00-seed=0": "the loss is nan at step 3"})
    save_predictions(Run(folder), seed=0)
    program = bytes(serialize_classifier((load_trained(Run(folder).best),)))
    (folder / "classifier.jax").write_bytes(program)
    about = {"classes": list(CLASSES), "image_shape": [50, 50, 1], "sha256": hashlib.sha256(program).hexdigest()}
    write_json(folder / "classifier.json", about)
    return Run(folder)


def use_models(run):
    (model,) = read_models([run.folder])
    assert isinstance(model, Model)
    assert all(math.isfinite(model.value(name)) or math.isnan(model.value(name)) for name in (*options(), "epoch"))
    assert isinstance(model.kind, str)


def use_facts(run):
    facts_html(read_models([run.folder]))


def use_epochs(run):
    if epochs := read_epochs(run):
        assert best_epoch(epochs) in epochs
        assert json.loads(json_text(epochs), parse_constant=pytest.fail)


def use_predictions(run):
    found = read_predictions(run, "test")
    assert np.isfinite(measures(found.logits, found.labels).log_loss).all()
    found.confusion()


def use_trained(run):
    load_trained(run.best)


def use_sweep(run):
    create_or_resume(SweepFolder(run.folder), SWEEP, overwrite=False, resume=False)


def use_export(run):
    assert load_exported(run.folder).image_shape == (50, 50, 1)


FILES = {
    "classifier.jax": use_export,
    "classifier.json": use_export,
    "config.json": use_models,
    "data.json": use_facts,
    "environment.json": use_facts,
    "metrics.jsonl": use_epochs,
    "predictions/test.npz": use_predictions,
    "best/manifest.json": use_trained,
    "sweep.json": use_sweep,
    "diverged.json": lambda run: read_diverged(SweepFolder(run.folder)),
}


def try_content(run, name, content):
    """Use the file with other content; afterwards it is as before."""
    path = run.folder / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        _, refused = read_or_refused(lambda: FILES[name](run), UserError)
    finally:
        path.write_bytes(before)
    # A manifest's fault may be found in the arrays beside it.
    assert refused is None or (str(path.parent) in refused and "; " in refused)


@pytest.mark.parametrize("name", FILES)
@MANY
@given(data=st.data())
def test_any_bytes(run, name, data):
    try_content(run, name, data.draw(mutated((run.folder / name).read_bytes())))


def places(content, path=()):
    """Where there is a value in JSON."""
    yield path
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield from places(content[key], (*path, key))


def put(content, path, value):
    """The content with another value in a place."""
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(("json", "jsonl"))])
@MANY
@given(data=st.data())
def test_any_value_in_any_place(run, name, data):
    lines = (
        [json.loads(line) for line in (run.folder / name).read_text("utf-8").splitlines()]
        if name.endswith("l")
        else [json.loads((run.folder / name).read_text("utf-8"))]
    )
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.sampled_from(list(places(lines[number]))))
    lines[number] = put(lines[number], place, data.draw(VALUES))
    try_content(run, name, "\n".join(map(json.dumps, lines)).encode())


KINDS = ["f4", ">f4", "f8", "i4", "i8", "u1", "?", "c8", "U3", "S3", "M8[s]", "m8[s]"]


@MANY
@given(data=st.data())
def test_any_array_in_the_place_of_another(run, tmp_path_factory, data):
    with np.load(run.predictions("test")) as arrays:
        content = {**arrays}
    name = data.draw(st.sampled_from([*content, "more"]))
    shape = data.draw(st.lists(st.sampled_from([0, 1, 3, 4, 39, 40]), max_size=3))
    kind = data.draw(st.sampled_from(KINDS))
    values = data.draw(st.sampled_from([0, 1, -1, 3, 4]))
    content[name] = np.full(shape, values).astype(kind)
    path = tmp_path_factory.getbasetemp() / "other.npz"
    np.savez(path, **content)
    try_content(run, "predictions/test.npz", path.read_bytes())
