"""The tables of the report and the README are those of docs/results, and a number in the text that isn't is found."""

import contextlib
import io
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cogapp import Cog

from docs import tables

ROOT = Path(__file__).parents[2]
PAGES = ("docs/report.md", "docs/evaluation.md", "docs/segmentation.md", "README.md")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("figures", "__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "docs" / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check():
    """What `make report` runs, without writing: the pages whose tables differ, and the numbers that are wrong."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cog = Cog()
        changed = cog.main(["cog", "-P", "-I", ".", "-p", "from docs import report", "--check", *PAGES])
    return changed, out.getvalue(), [line for page in PAGES for line in tables.wrong_claims(Path(page))]


def test_every_table_and_every_number_that_names_a_file_is_the_files(monkeypatch):
    monkeypatch.chdir(ROOT)
    changed, out, wrong = check()
    assert (changed, wrong) == (0, []), out
    monkeypatch.setattr(sys, "argv", ["docs.tables", *PAGES])
    monkeypatch.delitem(sys.modules, "docs.tables")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("docs.tables", run_name="__main__")
    assert ended.value.code is None


def test_a_result_that_changes_is_noticed_in_tables_and_sentences(copy):
    results = copy / "docs" / "results" / "unet-leak-free-seeds.csv"
    columns, values = (line.split(",") for line in results.read_text("utf-8").splitlines())
    scores = dict(zip(columns, map(float, values), strict=True))
    changed_scores = {name: value + 0.01 * name.startswith("test_f1") for name, value in scores.items()}
    results.write_text("\n".join(",".join(map(str, line)) for line in (columns, changed_scores.values())), "utf-8")
    changed, out, wrong = check()
    assert changed
    assert "README.md" in out
    of_column = "is not in column test_f1_macro of results/unet-leak-free-seeds.csv"
    told = f"report.md: {scores['test_f1_macro']:.3f} {of_column}"
    assert sum(line.startswith(told) for line in wrong) == 2


@pytest.mark.parametrize(
    ("number", "wrong"), [("0.468 ± 0.027", "0.468 ± 0.028"), ("0.620 to 0.665", "0.620 to 0.666")]
)
def test_a_sentence_that_changes_is_noticed(copy, number, wrong):
    page = copy / "docs" / "report.md"
    page.write_text(page.read_text("utf-8").replace(f"[{number}]", f"[{wrong}]", 1), "utf-8")
    changed, _, found = check()
    assert not changed
    assert len(found) == 1


def test_slices_with_a_tumour_and_without_become_two_classes(tmp_path, monkeypatch):
    """The report's own program."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "report.md").read_text("utf-8"), re.DOTALL)
    images, masks = np.full((4, 32, 32, 3), 100, np.uint8), np.zeros((4, 32, 32), bool)
    masks[0, :8, :8] = True
    masks[1, 0, :2] = True  # Fewer pixels than a glioma here has.
    images[3] = 0  # No head.
    np.savez(tmp_path / "slices.npz", images=images, masks=masks, patients=np.array(["a", "a", "b", "b"]))
    monkeypatch.setattr(sys, "argv", ["lgg_slices.py", str(tmp_path / "slices.npz"), str(tmp_path / "out")])
    exec(program, {})
    written = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")}
    assert written == {"glioma/a/0.png", "no_tumor/b/2.png"}
