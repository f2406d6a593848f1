"""The report is one valid page that holds all it needs, whatever the runs are called."""

import fnmatch
import json
import re
import tomllib
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from figures_command import draw
from scored_runs import DATA, options, save_baseline, save_grid, save_predictions, save_run

from figures.report import report_page
from figures.scored_models import read_models
from jaxcnn.evaluation import measures
from jaxcnn.runs.folder import Run, read_predictions

VOID = {"meta", "img", "link", "br", "input", "hr"}


class Page(HTMLParser):
    """What a page holds; refuses elements that aren't closed in their order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self):
        return json.loads(next(text for text in self.texts["script"] if text.startswith("{")))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return save_grid(tmp_path_factory.mktemp("sweeps") / "grid")


@pytest.fixture(scope="module")
def text(grid):
    return report_page("grid", read_models([grid]))


def test_the_page_is_whole_and_needs_nothing_else(text):
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    # No address but those of the pictures, which hold their data, and no style sheet or frame.
    addresses = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert len(addresses) == 5
    assert all(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert not page.all("link")
    assert all(picture["alt"] for picture in page.all("img"))
    assert not re.search(r"\$[a-z_]+\b(?!\{)", text.split("<script")[0])  # every place of the template is filled


def test_the_table_and_the_chart_have_the_same_models_in_the_same_order(grid, text):
    models = {model.name: model for model in read_models([grid])}
    page = Page(text)
    names = [cell["data-value"] for cell in page.all("th") if cell["scope"] == "row"]
    assert names == [model["name"] for model in page.data()["models"]]
    scores = [models[name].value("validation_f1_macro") for name in names]
    assert names[-1] == "diverged"
    assert scores[:-1] == sorted(scores[:-1], reverse=True)
    headers = [cell for cell in page.all("th") if cell["scope"] == "col"]
    cells = page.all("td")
    assert len(cells) == 14 * (len(headers) - 1)
    assert [header.get("aria-sort") for header in headers].count("descending") == 1
    best = [model["name"] for model in page.data()["models"] if model["best"]]
    assert best == ["model-11"]


def test_the_header_tells_data_protocol_counts_fingerprints_and_environment(text):
    page = Page(text)
    facts = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert facts == {
        "data": "phantom",
        "protocol": "leak-free: 7 training images that are near-copies of test images are left out",
        "images": "12 train, 12 validation, 12 test",
        "fingerprints": "train 000000000000, validation 111111111111, test 222222222222",
        "device": "2 x cpu",
        "versions": "Python 3.11.7, jaxcnn 0.1.0, jax 0.10.2",
        "revision": "0123456789ab",
    }


@pytest.mark.slow
def test_models_of_different_images_are_not_compared_in_silence(tmp_path):
    for name, f1 in zip("abde", (0.5, 0.6, 0.4, 0.3), strict=True):
        save_run(tmp_path / name, options(), [(f1, f1, f1)])
    assert "compare their scores with care" not in report_page("x", read_models([tmp_path]))
    save_run(tmp_path / "c", options(), [(0.7, 0.7, 0.7)], DATA | {"protocol": "official", "left_out": 0})
    text = report_page("x", read_models([tmp_path]))
    assert "compare their scores with care" in text
    page = Page(text)
    facts = list(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert ("models", "b, a, d and 1 more") in facts
    assert ("models", "c") in facts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["<script>alert(1)<", '&"x', "'--><!--", "$title ${script}", "</script><b>", "ä 脑"])
def test_names_of_folders_are_text_everywhere(tmp_path, name):
    # A slash is a border of folders, so the name with one is that of a run in a sweep: there are two of the same name.
    *sweep, run = name.split("/")
    for folder in (tmp_path / "".join(sweep) / run, tmp_path / "other" / run):
        save_run(folder, options(), [(0.5, 0.5, 0.5)])
    models = read_models([tmp_path / "".join(sweep) / run, tmp_path / "other" / run])
    page = Page(report_page(name, models))
    names = {model.name for model in models}
    assert any(name in shown or "".join(sweep) in shown for shown in names)
    assert {model["name"] for model in page.data()["models"]} == names
    assert {cell["data-value"] for cell in page.all("th") if cell["scope"] == "row"} == names
    assert page.texts["title"] == [name]
    assert page.texts["h1"] == [name]
    assert len(page.all("script")) == 2
    assert not page.all("b")


@pytest.mark.slow
def test_what_the_best_run_lacks_is_said(tmp_path):
    save_run(tmp_path / "a", options(), [(0.5, 0.5, 0.5)])
    assert "the run a hasn’t ended" in report_page("x", read_models([tmp_path]))
    save_baseline(tmp_path / "b")
    page = Page(report_page("x", read_models([tmp_path / "b"])))
    # A baseline has no epochs, but all the rest.
    assert len(page.all("img")) == 4
    assert "Learning curves" not in page.texts["h2"]


@pytest.mark.slow
def test_the_page_is_the_same_each_time_and_written_whole(grid, text, tmp_path, monkeypatch, capsys):
    assert draw(monkeypatch, "report", grid) == 0
    path = grid / "figures" / "report.html"
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_text(encoding="utf-8") == text
    assert draw(monkeypatch, "report", grid, "--out", tmp_path / "report.png") == 2
    assert "unknown suffix; choose one of html, htm" in capsys.readouterr().err
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert not list(tmp_path.iterdir())


def test_what_the_page_is_made_of_is_installed_with_the_package():
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["figures"]
    others = [file.name for file in files("figures").iterdir() if file.is_file() and not file.name.endswith(".py")]
    assert sorted(others) == ["report.css", "report.html", "report.js"]
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in others)


@pytest.mark.slow
def test_seeds_of_one_setting_stand_beside_their_mean_and_their_ensemble(tmp_path):
    for seed in range(3):
        run = save_run(tmp_path / f"seed-{seed}", options() | {"seed": seed}, [(0.5, 0.5 + seed / 10, 0.5)])
        save_predictions(run, seed)
    page = Page(report_page("seeds", read_models([tmp_path])))
    assert {"seed-2", "mean of 3 seeds", "ensemble of 3 seeds"} <= set(page.texts["th"])
    every = [
        measures(of.logits, of.labels)
        for of in (read_predictions(Run(tmp_path / f"seed-{n}"), "test") for n in range(3))
    ]
    mean = sum(of.f1_macro[0] for of in every) / 3
    assert any(cell.startswith(f"{mean:.3f} [") for cell in page.texts["td"])
