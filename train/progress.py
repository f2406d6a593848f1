"""What a run says while it goes: a bar on a terminal, one line an epoch everywhere."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from jaxcnn.evaluation.counts import Scores
from train.devices.distributed import is_first

Item = TypeVar("Item")


def bar(items: Iterable[Item], total: int, label: str, *, done: int = 0) -> "tqdm[Item]":
    """Iterate under a progress bar, which only a terminal sees and which is gone when it is full."""
    hidden = not (is_first() and sys.stderr.isatty())
    return tqdm(items, total=total, initial=done, desc=label, unit="step", leave=False, disable=hidden)


def say(line: str) -> None:
    """One line on stdout, above the bar if there is one; of several processes the first one speaks."""
    if not is_first():
        return
    tqdm.write(line)
    sys.stdout.flush()


def epoch_line(metrics: dict[str, float], epochs: int) -> str:
    """An epoch of metrics.jsonl for people."""
    splits = "  ".join(
        f"{split} loss {metrics[f'{split}_loss']:.3f} F1 {metrics[f'{split}_f1_macro']:.3f}"
        for split in ("train", "validation", "test")
    )
    speed = f"{metrics['seconds']:.0f} s, {metrics['images_per_second']:.1f} images/s"
    return f"epoch {metrics['epoch']:>{len(str(epochs))}}/{epochs}  {splits}  {speed}"


def score_table(by_split: dict[str, tuple[int, Scores]]) -> str:
    """Scores of the splits as a table; each value is the number of images and their scores."""
    rows = [f"{'':<12}{'images':>8}{'loss':>9}{'accuracy':>10}{'macro F1':>10}{'weighted F1':>13}"]
    rows += [
        f"{split:<12}{images:>8}{s.loss:>9.3f}{s.accuracy:>10.3f}{s.f1_macro:>10.3f}{s.f1_weighted:>13.3f}"
        for split, (images, s) in by_split.items()
    ]
    return "\n".join(rows)
