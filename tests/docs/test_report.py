"""The tables of the report and the README are those of docs/results, and a number in the text that isn't is found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/report.md", "docs/evaluation.md", "docs/segmentation.md", "README.md")
COG = (sys.executable, "-m", "cogapp", "-P", "-I", ".", "-p", "from docs import report")


def run(*words, folder=ROOT):
    return subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("figures", "__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def check(folder):
    """What `make report` runs, without writing: the pages whose tables differ, and the numbers that are wrong."""
    environment = [f"PYTHONPATH={ROOT}"]
    tables = run("env", *environment, *COG, "--check", *PAGES, folder=folder)
    claims = run("env", *environment, sys.executable, "-m", "docs.tables", *PAGES, folder=folder)
    return tables, claims


def test_every_table_and_every_number_that_names_a_file_is_the_files(copy):
    for ended in check(copy):
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_result_that_changes_is_noticed_in_tables_and_sentences(copy):
    results = copy / "docs" / "results" / "unet-leak-free-seeds.csv"
    text = results.read_text()
    assert "0.6581730672291629" in text
    results.write_text(text.replace("0.6581730672291629", "0.6681730672291629"))
    tables, claims = check(copy)
    assert tables.returncode
    assert "README.md" in tables.stdout
    assert claims.returncode
    assert (
        claims.stderr.count("report.md: 0.658 is not in column test_f1_macro of results/unet-leak-free-seeds.csv") == 2
    )


@pytest.mark.parametrize(
    ("number", "wrong"), [("0.471 ± 0.075", "0.471 ± 0.076"), ("0.611 to 0.696", "0.610 to 0.696")]
)
def test_a_sentence_that_changes_is_noticed(copy, number, wrong):
    page = copy / "docs" / "report.md"
    page.write_text(page.read_text("utf-8").replace(f"[{number}]", f"[{wrong}]"), "utf-8")
    tables, claims = check(copy)
    assert tables.returncode == 0
    assert claims.returncode
    assert claims.stderr.count("\n") == 1
