"""What Orbax prints on a failure is kept away, and nothing else is, nor for longer than it must be."""

import logging
import runpy
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxcnn.runs import orbax_errors as failures
from jaxcnn.runs.orbax_errors import as_os_error, without_logs


@pytest.fixture
def reports(monkeypatch):
    """What reaches the hook that is there before Orbax is called."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: seen.append(str(report.exc_value)))
    return seen


def tell(message):
    sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(message)))


@pytest.fixture(params=[partial(as_os_error, Path("run")), without_logs], ids=["write", "read"])
def call(request):
    """What Orbax's writes, or its reads, are called in."""
    return request.param


def fail(call):
    with pytest.raises(ValueError, match="damaged"), call():
        raise ValueError("damaged")


def test_after_a_success_the_hook_is_as_it_was(reports, call):
    hook = sys.unraisablehook
    with call():
        tell("Event loop is closed")
        tell("within")
    assert sys.unraisablehook is hook
    assert reports == ["within"]


def test_after_a_failure_late_reports_are_kept_away_and_others_are_told_once(reports, call):
    fail(call)
    tell("Event loop is closed")
    tell("after")
    assert reports == ["after"]


@pytest.mark.usefixtures("reports")
def test_however_often_it_fails_there_is_one_hook_more(call):
    fail(call)
    hook = sys.unraisablehook
    for _ in range(3):
        fail(call)
        with call():
            pass
    assert sys.unraisablehook is hook


@pytest.fixture
def disabled():
    """The program has switched off all up to this level."""
    logging.disable(logging.INFO)
    yield logging.INFO
    logging.disable(logging.NOTSET)


def test_after_a_read_logging_is_as_the_program_had_it(disabled):
    with without_logs():
        assert logging.root.manager.disable == logging.CRITICAL
    assert logging.root.manager.disable == disabled
    fail(without_logs)
    assert logging.root.manager.disable == disabled


def test_an_import_changes_no_logger_of_others():
    absl, asyncio = logging.getLogger("absl"), logging.getLogger("asyncio")
    level = absl.level
    absl.setLevel(logging.WARNING)
    try:
        filters = list(asyncio.filters)
        runpy.run_path(failures.__file__)
        assert absl.level == logging.WARNING
        assert asyncio.filters == filters
    finally:
        absl.setLevel(level)


def test_after_a_failed_read_asyncio_is_heard_on_all_but_orbax(caplog):
    for _ in range(3):
        fail(without_logs)
    logger = logging.getLogger("asyncio")
    assert logger.filters.count(failures._is_no_late_failure) == 1
    logger.error("Task exception was never retrieved: orbax/checkpoint/serialization.py")
    logger.error("Task exception was never retrieved: mine.py")
    logger.error("orbax takes long")
    assert [record.getMessage() for record in caplog.records] == [
        "Task exception was never retrieved: mine.py",
        "orbax takes long",
    ]
