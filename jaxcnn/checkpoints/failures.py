"""What Orbax raises and prints when a file can't be written or read, brought down to one error."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Orbax tells each step of a save at level INFO, and pages of what goes wrong before it raises it.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def as_os_error(folder: Path) -> Iterator[None]:
    """Orbax and what lies below it raise many kinds where a file can't be written; let it be the one that says why."""
    hook = sys.unraisablehook
    sys.unraisablehook = _but_late_reports(hook)
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error
    sys.unraisablehook = hook


def _but_late_reports(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The hook for errors that nobody can catch, without those of writes that end after another has failed.

    Orbax closes its event loop when a write fails. The others report to it all the same, some of them after the error
    was raised, and each would print a page.
    """

    def without(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return without


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Orbax logs pages on what it can't read; the error that it raises is enough."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _is_no_late_failure(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not ("exception was never retrieved" in message and ("orbax" in message or "tensorstore" in message))


# Orbax reads many arrays at a time and asks the first that fails alone. asyncio tells of the others when they are
# collected as garbage, which may be anywhere in the program.
logging.getLogger("asyncio").addFilter(_is_no_late_failure)
