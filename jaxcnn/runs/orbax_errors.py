"""Reduce what Orbax raises and prints when a file can't be written or read to one error."""

import contextlib
import json
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

# What TensorStore calls files that are not what was written.
_DAMAGE = {"DATA_LOSS": "a checksum is wrong", "OUT_OF_RANGE": "a file is cut off", "NOT_FOUND": "a file is missing"}
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DamagedError(ValueError):
    """The content that was read differs from what was written."""


def is_damage(error: BaseException) -> bool:
    """Tell whether a read error means that the files are damaged, so that trying again is useless.

    A disk that doesn't answer, memory that is full or a version of Orbax that reads in another way say nothing of that.
    """
    cause = _first_cause(error)
    if code := _os_error_code(cause):
        return isinstance(OSError(code, ""), _GONE)
    wrong = (DamagedError, json.JSONDecodeError, UnicodeDecodeError, *_GONE)
    return isinstance(cause, wrong) or str(cause).startswith(tuple(_DAMAGE))


def reason(error: BaseException) -> str:
    """Say in a few words why a read failed."""
    cause = _first_cause(error)
    if code := _os_error_code(cause):
        return os.strerror(code)
    for status, words in _DAMAGE.items():
        if str(cause).startswith(status):
            return words
    return textwrap.shorten(str(cause).split("\n")[0] or type(cause).__name__, 200)


def _first_cause(error: BaseException) -> BaseException:
    while cause := error.__cause__:
        error = cause
    return error


def _os_error_code(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return int(code[1]) if code else None


@contextlib.contextmanager
def as_os_error(folder: Path) -> Iterator[None]:
    """Orbax and what lies below it raise many kinds where a file can't be written; let it be the one that says why."""
    try:
        with _without_late_reports():
            yield
    except OSError:
        raise
    except Exception as error:
        code = _os_error_code(error)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(folder)) from error


@contextlib.contextmanager
def _without_late_reports() -> Iterator[None]:
    """Report errors that nobody can catch, except those of writes and reads that end after another has failed.

    Orbax closes its event loop when one fails. The others report to it all the same, and each would print a page.
    """
    hook = sys.unraisablehook
    left_by_a_failure = isinstance(hook, partial) and hook.func is _report_unless_late
    sys.unraisablehook = hook if left_by_a_failure else partial(_report_unless_late, hook)
    yield
    # Not after a failure: some reports are yet to come.
    sys.unraisablehook = hook


def _report_unless_late(hook: Callable[[Any], Any], unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Orbax logs pages on what it can't read; the error that it raises is enough."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with _without_late_reports():
            yield
    except Exception:
        # Orbax reads many arrays at a time and asks the first that fails alone. asyncio tells of the others when they
        # are collected as garbage, which may be anywhere in the program. (A filter that is there is not added again.)
        logging.getLogger("asyncio").addFilter(_is_no_late_failure)
        raise
    finally:
        logging.disable(level)


def _is_no_late_failure(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not ("exception was never retrieved" in message and ("orbax" in message or "tensorstore" in message))


# Orbax's own checkpointer calls its own context in a way that it warns of; no user can do anything about that.
logging.getLogger("absl").addFilter(
    lambda record: "Passing direct option objects to Context" not in record.getMessage()
)
