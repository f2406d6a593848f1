"""Exit codes, and one line for whoever typed something wrong."""

import dataclasses
import errno
import logging
import os
import sys
from pathlib import Path

import pytest
import tyro

from jaxcnn import cli
from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    epochs: int = 3
    gate: str = "sigmoid"

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"--epochs {self.epochs}: must be at least 1")


def train(options: Options, *, overwrite: bool = False) -> None:
    """Train."""
    print(options.epochs, overwrite)


def evaluate(run: tyro.conf.Positional[Path]) -> int:
    """Evaluate."""
    if run.name == "missing":
        raise UserError(f"{run}: no run folder;\nmake one")
    if run.name == "interrupted":
        raise KeyboardInterrupt
    if run.name == "locked":
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(run))
    if run.name == "bug":
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    if run.name == "noisy":
        logging.getLogger("absl").error("pages of what Orbax can't do")
    return 1


def exit_code(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as error:
        cli.run("program", {"train": train, "evaluate": evaluate}, "A program.")
    return error.value.code


def test_a_command_gets_its_options_and_exits_with_0(monkeypatch, capsys):
    assert exit_code(monkeypatch, "train", "--epochs", "5", "--overwrite") == 0
    assert capsys.readouterr().out == "5 True\n"


def test_a_command_chooses_its_exit_code(monkeypatch):
    assert exit_code(monkeypatch, "evaluate", "run") == 1


def test_help_exits_with_0_and_names_the_commands(monkeypatch, capsys):
    assert exit_code(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert "A program." in shown
    assert "evaluate" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "missing"], "missing: no run folder; make one"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--epochs", "0"], "error: --epochs 0: must be at least 1"),
        (["train", "--epoch", "3", "--bogus"], "--bogus"),
        (["destroy"], "destroy"),
        (["evaluate"], "Missing"),
        ([], "Expected one of {train, evaluate}"),
    ],
)
def test_wrong_input_is_told_in_one_line_with_exit_code_2(monkeypatch, capsys, arguments, message):
    assert exit_code(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1


def test_ctrl_c_exits_with_130_and_no_traceback(monkeypatch, capsys):
    assert exit_code(monkeypatch, "evaluate", "interrupted") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_folder_that_may_not_be_read_is_named_in_one_line_with_exit_code_2(monkeypatch, capsys):
    """Python 3.11 raises it for a mere `Path.exists`, which no command takes care of."""
    assert exit_code(monkeypatch, "evaluate", "/root/locked") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: /root/locked: Permission denied; choose ")
    assert shown.err.count("\n") == 1


def test_what_is_not_permitted_but_no_matter_of_a_file_is_a_bug(monkeypatch):
    with pytest.raises(PermissionError):
        exit_code(monkeypatch, "evaluate", "bug")


def test_orbax_logs_nothing_beside_what_a_command_says(monkeypatch, caplog):
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        exit_code(monkeypatch, "evaluate", "noisy")
        assert not caplog.records
    finally:
        logger.setLevel(level)
