"""A path that no file can have is told in one line, whichever command it is given to."""

import importlib
import sys

import pytest
from scored_runs import options, save_run

COMMANDS = [
    # They load images, or torch, before they see the path.
    pytest.param("train simplecnn --run-dir PATH", marks=pytest.mark.slow),
    pytest.param("train sweep simplecnn --sweep-dir PATH --grid seed=0,1", marks=pytest.mark.slow),
    pytest.param("convert unet PATH out", marks=pytest.mark.slow),
    pytest.param("convert unet model.pt PATH", marks=pytest.mark.slow),
    "train simplecnn --data PATH",
    "train unet --encoder PATH",
    "train baseline nearest-neighbour --run-dir PATH",
    "train baseline nearest-neighbour --data PATH",
    "train evaluate PATH",
    "train evaluate RUN --compare PATH",
    "train predict PATH scan.png",
    "train predict RUN PATH",
    "train export PATH out",
    "train export RUN PATH",
    "jaxcnn.data prepare PATH --out out",
    "jaxcnn.data prepare RUN --out PATH",
    "jaxcnn.data audit PATH",
    "figures models PATH",
    "figures learning-curves PATH",
    "figures learning-curves RUN --out PATH.png",
    "figures confusion-matrices PATH",
    "figures reliability PATH",
    "figures roc-curves PATH",
    "figures report PATH",
    "figures segmentation --weights PATH --images scan.png",
    "figures manual-convolution --data PATH",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run", options(), [(0.5, 0.5, 0.5)], predictions=True).folder


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"], ids=["too long", "NUL"])
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_told_in_one_line_with_exit_code_2(command, path, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    room, *words = command.split()
    monkeypatch.setattr(sys, "argv", [room, *(word.replace("PATH", path).replace("RUN", str(run)) for word in words)])
    with pytest.raises(SystemExit) as error:
        importlib.import_module(f"{room}.__main__").main()
    shown = capsys.readouterr()
    assert error.value.code == 2, shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
