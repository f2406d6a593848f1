"""Where a run stands, as far as its state doesn't say: kept with each checkpoint, so that a run goes on from there."""

import dataclasses
from typing import Any

import numpy as np

from jaxcnn.evaluation.counts import Tally


@dataclasses.dataclass(frozen=True)
class Position:
    """Inside an epoch.

    Attributes:
        epoch: the one that is trained, from 1.
        done: steps of it that are done.
        counted: sums over these steps, in double precision, so that they are the same in however many parts they came.
        seconds: that these steps took.
    """

    epoch: int
    done: int
    counted: Tally
    seconds: float


def start_of_epoch(epoch: int, classes: int) -> Position:
    """Before the first step of an epoch."""
    return Position(epoch, 0, Tally(np.float64(0), np.zeros((classes, classes), np.int64)), 0.0)


def as_json(position: Position) -> dict[str, Any]:
    """The position for a checkpoint; floats survive JSON to the bit."""
    counted = {"loss": float(position.counted.loss), "confusion": position.counted.confusion.tolist()}
    return {"epoch": position.epoch, "done": position.done, "counted": counted, "seconds": position.seconds}


def from_json(content: dict[str, Any]) -> Position:
    """What `as_json` gave."""
    counted = Tally(np.float64(content["counted"]["loss"]), np.array(content["counted"]["confusion"], np.int64))
    return Position(content["epoch"], content["done"], counted, content["seconds"])
