"""The measure of docs/evaluation.md that averages over batches of one class."""

import csv
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_mean_over_batches_of_a_sorted_set_is_higher_than_the_score(tmp_path, monkeypatch, capsys):
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "class"])
        table.writerows([("b", "a"), ("b", "b"), ("a", "a"), ("a", "a")] * 32)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(block, {})
    # The first batch is all a and right; of the second, all b, half is right and the precision is 1. Over all images,
    # a has the F1 4/5 and b 2/3.
    mean_of_batches = (1 + 2 / 3) / 2
    assert float(capsys.readouterr().out) == pytest.approx(mean_of_batches)
    assert mean_of_batches > (4 / 5 + 2 / 3) / 2
