"""Print tables from the files in docs/results, and check the numbers that sentences take from them.

In a page, cog puts the tables between their marks. A number in a sentence is the text of a link to its file, with the
column as the link's title, and must be there. `make report` does both.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from train.sweep.table import mean_and_interval

RESULTS = Path(__file__).parent / "results"
Line = Mapping[str, str]

_SCORE = r"\d+\.\d+"
# As in [0.658 ± 0.040](results/unet-leak-free-seeds.csv "test_f1_macro"): a score, several, or a mean and its interval.
_CLAIM = re.compile(
    rf'\[((?:{_SCORE}|[ ,±]|and|to|of)+)\]\((?:docs/)?(results/[\w-]+\.(?:csv|json)) "(\w+)((?:; [^";]+)*)"\)'
)


def lines(name: str, **where: object) -> list[Line]:
    """The lines whose columns have these values, of a CSV file or of what `train evaluate --json` printed."""
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        every = map(_line, json.load(file)["runs"]) if name.endswith(".json") else csv.DictReader(file)
        found = [line for line in every if all(line[key] == str(value) for key, value in where.items())]
    if not found:
        raise ValueError(f"{name}: no line has {where}")
    return found


def _line(run: Mapping[str, Any]) -> dict[str, str]:
    """A run's name, the options in it (`02-seed=0,augment=none`) and its scores, with `recall_glioma` for a class."""
    name = Path(run["run"]).name
    line = {"run": name, **dict(re.findall(r"(\w+)=([^,]+)", name)), "protocol": str(run.get("protocol"))}
    scores = run["measures"] | {
        f"{measure}_{of.removesuffix('_tumor')}": score
        for of, measures in run.get("classes", {}).items()
        for measure, score in measures.items()
    }
    for measure, score in scores.items():
        for column, end in ((measure, "value"), (f"{measure}_low", "low"), (f"{measure}_high", "high")):
            line[column] = "" if score[end] is None else str(score[end])
    return line


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table in Markdown; the columns with the numbers in `right` are aligned to the right."""
    rules = ["---:" if place in right else "---" for place in range(len(head))]
    for row in (head, rules, *rows):
        print("|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|")


def plain(line: Line, column: str) -> str:
    """A score."""
    return f"{float(line[column]):.3f}"


def with_half_width(line: Line, column: str) -> str:
    """A mean over seeds and half of its 95% interval."""
    return f"{plain(line, column)} ± {float(line[f'{column}_half_width']):.3f}"


def with_interval(line: Line, column: str) -> str:
    """A score and its 95% interval."""
    return f"{plain(line, column)} [{plain(line, f'{column}_low')}, {plain(line, f'{column}_high')}]"


def over(found: Sequence[Line], column: str) -> str:
    """One score, two of them, or the mean of more with half of its 95% interval."""
    values = [float(line[column]) for line in found]
    if len(values) < 3:
        return ", ".join(f"{value:.3f}" for value in values)
    estimate = mean_and_interval(values)
    return f"{estimate.mean:.3f} ± {estimate.half_width:.3f}"


def wrong_claims(page: Path) -> Iterator[str]:
    """Find the numbers in the sentences of a page that the file they link to doesn't have.

    The title of a link names the column and, after a semicolon, the lines (`column=value`), if not all of them count.
    Of several lines the lowest, the highest, the median, the mean and half of its 95% interval are right.
    """
    for text, name, column, where in _CLAIM.findall(page.read_text(encoding="utf-8")):
        chosen = lines(Path(name).name, **dict(part.split("=", 1) for part in where.split("; ")[1:]))
        values = [float(line[column]) for line in chosen if line[column]]
        widths = [float(line[f"{column}_half_width"]) for line in chosen if f"{column}_half_width" in line]
        estimate = mean_and_interval(values)
        right = (*widths, min(values), max(values), median(values), estimate.mean, estimate.half_width)
        for number in re.findall(_SCORE, text):
            digits = len(number.split(".")[1])
            if number not in {f"{value:.{digits}f}" for value in right}:
                yield f"{page.name}: {number} is not in column {column} of {name}{where}"


if __name__ == "__main__":
    wrong = [line for name in sys.argv[1:] for line in wrong_claims(Path(name))]
    sys.exit("\n".join(wrong) or None)
