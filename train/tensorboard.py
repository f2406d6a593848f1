"""Write the scores of each epoch for TensorBoard, too, with the confusion matrix of the validation images.

RUN/tensorboard/ holds a file an epoch, written whole: an epoch that is trained again replaces its own, so that none is
there twice. The numbers are those of metrics.jsonl.
"""

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxcnn.data.dataset import SPLITS
from jaxcnn.errors import UserError, is_installed
from jaxcnn.runs.files import whole_file
from jaxcnn.runs.folder import Run


def check_tensorboard() -> None:
    """Raise a UserError if what writes the events isn't installed."""
    if not is_installed("tensorboardX"):
        raise UserError(
            "--tensorboard: needs tensorboardX, which is not installed:"
            " pip install -c constraints.txt -e '.[tensorboard]'"
        )


def write_events(
    run: Run,
    epochs: Sequence[Mapping[str, Any]],
    confusion: Int[np.ndarray, "classes classes"],
    classes: tuple[str, ...],
) -> None:
    """Write the events of the last epoch, and the numbers of those before that have no file yet.

    Args:
        epochs: the run's lines of metrics.jsonl.
        confusion: of the last epoch's validation images, true classes in rows.
    """
    for epoch in epochs:
        path = run.events / f"events.out.tfevents.epoch-{epoch['epoch']:05}"
        if epoch is epochs[-1]:
            _write(path, epoch, confusion_picture(confusion, classes))
        elif not path.exists():
            _write(path, epoch, None)


def _write(path: Path, epoch: Mapping[str, Any], picture: bytes | None) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    now = time.time()
    numbers = {name: value for name, value in epoch.items() if name not in ("epoch", "step")}
    values = [Summary.Value(tag=_tag(name), simple_value=value) for name, value in numbers.items()]
    if picture is not None:
        values.append(Summary.Value(tag="confusion/validation", image=Summary.Image(encoded_image_string=picture)))
    summary = Event(wall_time=now, step=epoch["epoch"], summary=Summary(value=values))
    with whole_file(path) as temporary:
        writer = RecordWriter(str(temporary))
        for event in (Event(wall_time=now, file_version="brain.Event:2"), summary):
            writer.write(event.SerializeToString())
        writer.close()


def _tag(name: str) -> str:
    """TensorBoard puts what stands before the slash together: loss/train, loss/validation."""
    split, _, score = name.partition("_")
    return f"{score}/{split}" if split in SPLITS else f"training/{name}"


def confusion_picture(confusion: Int[np.ndarray, "classes classes"], classes: tuple[str, ...]) -> bytes:
    """Draw a confusion matrix as a PNG file: counts, coloured by their share of the true class."""
    # Only here, so that training starts without it.
    from matplotlib.figure import Figure

    side = 2.5 + 0.5 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    panel = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if shares[row, column] > 0.5 else "black"
        panel.text(column, row, str(count), ha="center", va="center", color=colour)
    panel.set_xticks(range(len(classes)), classes, rotation=90, parse_math=False)
    panel.set_yticks(range(len(classes)), classes, parse_math=False)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=100)
    return written.getvalue()
