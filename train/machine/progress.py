"""Print the progress of a run: a progress bar on a terminal, and one line per epoch everywhere."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from jaxcnn.data.dataset import SPLITS
from jaxcnn.evaluation.tasks import task_of
from train.machine.processes import is_first

Item = TypeVar("Item")


def progress_bar(total: int, label: str, items: Iterable[Item] | None = None, *, done: int = 0) -> "tqdm[Item]":
    """A progress bar, which is shown on terminals and in notebooks and removed when it ends; it may iterate."""
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
        " ".join(
            f"{title} {metrics[f'{split}_{score}']:.3f}"
            for score, title in {"loss": f"{split} loss", **task_of(metrics).in_line}.items()
            if f"{split}_{score}" in metrics
        )
        for split in SPLITS
    )
    alone, overall = metrics["images_per_second"], metrics["overall_images_per_second"]
    speed = f"{metrics['seconds']:.0f} s, {alone:.1f} images/s ({overall:.1f} with evaluation)"
    return f"epoch {metrics['epoch']:>{len(str(epochs))}}/{epochs}  {splits}  {speed}"
