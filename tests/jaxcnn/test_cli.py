"""Exit codes, and one line for whoever typed something wrong."""

import dataclasses
import errno
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
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
    if run.name == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run))
    if len(run.name) == 300:
        run.exists()
    if run.name == "prints":
        print("accuracy – ✓", run)
        return 0
    if run.name == "wraps":
        try:
            print("accuracy", flush=True)
        except OSError as error:
            raise UserError(f"{run}: {error.strerror}; see to that, then go on") from error
    if run.name == "large":
        np.empty((10**7, 10**7))
    if run.name == "large for XLA":
        jax.jit(lambda: jnp.zeros((10**5, 10**5, 10**3)))()
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


def test_help_wraps_an_option_at_the_width_of_the_terminal_alone(monkeypatch, capsys):
    """Not where its docstring is broken into lines."""

    def draw(*, colours: int = 2) -> None:
        """Draw a picture.

        It has a frame.

        Args:
            colours: Number of colours in the picture that is drawn, one
                for each class, and one more for the
                2 classes that differ most.
        """

    monkeypatch.setattr(sys, "argv", ["draw", "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as error:
        cli.run("draw", draw, "A program.")
    shown = capsys.readouterr().out
    assert error.value.code == 0
    assert "in the picture that is drawn, one for each class, and one more for the 2 classes that differ most." in shown


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


def test_a_name_that_is_too_long_is_told_in_one_line_with_exit_code_2(monkeypatch, capsys):
    """No command takes care of it either: `Path.exists` raises it."""
    assert exit_code(monkeypatch, "evaluate", "x" * 300) == 2
    assert capsys.readouterr().err == f"error: {'x' * 300}: File name too long; give a shorter name\n"


def test_a_nul_character_is_told_in_one_line_with_exit_code_2(monkeypatch, capsys):
    """A shell can't pass one on, but a program that calls `main` can."""
    assert exit_code(monkeypatch, "evaluate", "a\0b") == 2
    assert capsys.readouterr().err == "error: 'a\\x00b': contains a NUL character; remove it\n"


def set_stdout(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def full_disk():
    return open("/dev/full", "w", encoding="utf-8")


def unbuffered():
    return io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True, encoding="utf-8")


@pytest.mark.parametrize(
    ("open_full", "name"),
    [(full_disk, "prints"), (unbuffered, "prints"), (full_disk, "wraps")],
)
def test_a_full_disk_under_the_output_is_told_in_one_line_with_exit_code_1(monkeypatch, capsys, open_full, name):
    with set_stdout(monkeypatch, open_full()):
        assert exit_code(monkeypatch, "evaluate", name) == 1
    assert capsys.readouterr().err == "error: standard output: No space left on device; redirect it elsewhere\n"


def test_help_that_can_not_be_printed_exits_with_1_as_well(monkeypatch, capsys):
    with set_stdout(monkeypatch, full_disk()):
        assert exit_code(monkeypatch, "evaluate", "--help") == 1
    assert capsys.readouterr().err == "error: standard output: No space left on device; redirect it elsewhere\n"


def test_a_full_disk_under_a_file_is_told_in_one_line(monkeypatch, capsys):
    assert exit_code(monkeypatch, "evaluate", "full") == 2
    assert capsys.readouterr().err == "error: full: No space left on device; make room\n"


@pytest.mark.parametrize("name", ["large", "large for XLA"])
def test_full_memory_is_told_in_one_line_with_exit_code_1(monkeypatch, capsys, name):
    assert exit_code(monkeypatch, "evaluate", name) == 1
    assert re.fullmatch(r"error: the memory is full \(.*\); choose smaller sizes.*\n", capsys.readouterr().err)


def test_a_reader_that_has_seen_enough_is_no_fault(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with set_stdout(monkeypatch, open(writer, "w", encoding="utf-8")):
        assert exit_code(monkeypatch, "evaluate", "prints") == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_output_that_the_user_has_closed_goes_nowhere(monkeypatch, name):
    for word, code in (("prints", 0), ("missing", 2)):
        monkeypatch.setattr(sys, name, None)
        assert exit_code(monkeypatch, "evaluate", word) == code
        getattr(sys, name).close()


def test_what_the_terminal_has_no_sign_for_is_printed_by_its_number(monkeypatch):
    written = io.BytesIO()
    set_stdout(monkeypatch, io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert exit_code(monkeypatch, "evaluate", "\udcff/prints") == 0
    assert written.getvalue() == b"accuracy \\u2013 \\u2713 \\udcff/prints\n"
    assert exit_code(monkeypatch, "--help") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("redirection", "code"), [(">&-", 0), (">&- 2>&-", 0), (">/dev/full", 1)])
def test_so_it_is_for_the_project_s_own_command(redirection, code):
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = f"{sys.executable} -m jaxcnn convolution --help {redirection}"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert shown.returncode == code
    assert shown.stderr.count("\n") == code


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline"])
def test_the_backend_of_a_notebook_keeps_no_figure_from_being_drawn(backend):
    """Where its package is not installed Matplotlib can't even be imported."""
    script = "import figures; from matplotlib.figure import Figure; Figure().savefig('/dev/null', format='png')"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"MPLBACKEND": backend}, check=True)


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
