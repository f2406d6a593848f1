"""python -m figures, as a user types it."""

import sys

import pytest

from figures.__main__ import main


def draw(monkeypatch, *arguments):
    """Run the command and give its exit code."""
    monkeypatch.setattr(sys, "argv", ["figures", *map(str, arguments)])
    with pytest.raises(SystemExit) as error:
        main()
    return error.value.code
