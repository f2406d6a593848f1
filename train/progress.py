"""Print the progress of a run: a progress bar on a terminal, and one line per epoch everywhere."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from jaxcnn.evaluation.counts import Scores
from jaxcnn.tables import format_table
from train.processes import is_first

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], total: int, label: str, *, done: int = 0) -> "tqdm[Item]":
    """Iterate under a progress bar, which is shown on terminals and in notebooks, and removed when it is full."""
    shown = is_first() and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    return tqdm(items, total=total, initial=done, desc=label, unit="step", leave=False, disable=not shown)


def report(line: str) -> None:
    """Print a line, above the progress bar if there is one; only the first of several processes prints."""
    if is_first():
        tqdm.write(line)
        sys.stdout.flush()


def epoch_line(metrics: dict[str, Any], epochs: int) -> str:
    """Format an epoch of metrics.jsonl as one line."""
    splits = "  ".join(
        f"{split} loss {metrics[f'{split}_loss']:.3f} F1 {metrics[f'{split}_f1_macro']:.3f}"
        for split in ("train", "validation", "test")
    )
    speed = f"{metrics['seconds']:.0f} s, {metrics['images_per_second']:.1f} images/s"
    return f"epoch {metrics['epoch']:>{len(str(epochs))}}/{epochs}  {splits}  {speed}"


def score_table(by_split: dict[str, tuple[int, Scores]]) -> str:
    """Format the scores of the splits as a table; each value is the number of images and their scores."""
    rows = [["", "images", "loss", "accuracy", "macro F1", "weighted F1"]]
    for split, (images, scores) in by_split.items():
        numbers = (scores.loss, scores.accuracy, scores.f1_macro, scores.f1_weighted)
        rows.append([split, str(images), *(f"{number:.3f}" for number in numbers)])
    return format_table(rows)
