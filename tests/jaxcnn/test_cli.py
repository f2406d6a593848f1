"""Exit codes, and one line for whoever typed something wrong."""

import dataclasses
import sys
from pathlib import Path

import pytest
import tyro

from jaxcnn import cli


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
        raise cli.UserError(f"{run}: no run folder;\nmake one")
    if run.name == "interrupted":
        raise KeyboardInterrupt
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
