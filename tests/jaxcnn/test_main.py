"""The one command: it leads to the commands of the rooms, and says what is in the way."""

import subprocess
import sys

import pytest

from jaxcnn.__main__ import COMMANDS, main


def test_without_a_command_all_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxcnn"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in COMMANDS)


def test_an_unknown_command_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxcnn", "trian"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: trian: there is no such command; choose one of train, convert, ")
    assert shown.count("\n") == 1


def test_a_room_s_command_is_called_by_this_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxcnn", "data", "prepare"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "(see: jaxcnn data --help)" in capsys.readouterr().err


def test_a_file_that_hides_a_room_is_named(tmp_path):
    """Python looks into the current folder first when it is asked for a module."""
    (tmp_path / "train.py").touch()
    command = [sys.executable, "-m", "jaxcnn", "train"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: {tmp_path / 'train.py'}: hides the package train; rename it, or use")
    assert finished.stderr.count("\n") == 1
