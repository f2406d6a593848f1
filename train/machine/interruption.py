"""End a run early: on a signal, after the current step is saved, or because the run diverges."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class UnfinishedRunError(Exception):
    """A run ended before its last epoch. Its last good checkpoint is kept; `folder` is the run's, once it has one."""

    folder: Path | None = None


class DivergedRunError(UnfinishedRunError):
    """The loss or the state of a run has become infinite or NaN; the message says where."""


class InterruptedRunError(UnfinishedRunError):
    """A signal asked a run to stop, and it has saved what is needed to continue."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class Interruption:
    """Whether a signal has asked the run to stop.

    Attributes:
        signal_number: of the signal that this process got; 0 for none.
        requested: of the signal that all processes are to stop for, as of the last `poll`; 0 for none.
    """

    def __init__(self, agree: Callable[[int], int]) -> None:
        self.signal_number = 0
        self.requested = 0
        self._agree = agree

    def poll(self) -> bool:
        """Whether the run is to stop; every process must ask at the same places."""
        self.requested = self._agree(self.signal_number)
        return self.requested != 0

    def check_last(self) -> None:
        """At the end, when nobody polls any more: raise InterruptedRunError if a signal came since, to any process."""
        # The first answer may be to what was asked before the signal came.
        self.poll()
        self.poll()
        self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raise InterruptedRunError if the last `poll` found that the run is to stop."""
        if self.requested:
            raise InterruptedRunError(self.requested)


@contextmanager
def interruption(agree: Callable[[int], int]) -> Iterator[Interruption]:
    """While the block runs, SIGINT and SIGTERM only make a note; SIGINT after another one ends the process as ever.

    Python lets the main thread alone say what a signal does; in another (Optuna, a web worker) they do what they did.

    Args:
        agree: from the number of this process's signal, 0 for none, to the one that all processes act on.
    """
    requested = Interruption(agree)
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    # None is a handler that was not set by Python, which can't set it again.
    previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        requested.signal_number = number
        # Not SIGTERM: where Slurm preempts a job it sends two of them at once.
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    for number in previous:
        signal.signal(number, note)
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
