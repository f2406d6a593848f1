"""How every command of the project reads its arguments, fails and exits.

Exit codes: 0 success; 2 wrong input, with one line on stderr that says what to do; 1 a bug, a failed check or a full
disk.
"""

import contextlib
import errno
import functools
import inspect
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import tyro

from jaxcnn.errors import UserError

Options = TypeVar("Options")

_WAYS_OUT = dict.fromkeys((errno.EACCES, errno.EPERM), "choose files and folders that you may read and write") | {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "choose another, or correct the links",
    errno.ENOSPC: "make room",
}
_NO_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)


def needed(metavar: str) -> Any:
    """Describe one or more arguments that a command can't do without, such as `RUN [RUN ...]`, to tyro."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="(required)")


def run(program: str, commands: Mapping[str, Callable[..., Any]] | Callable[..., Any], summary: str) -> NoReturn:
    """Parse `sys.argv`, call the command it names, and exit.

    Args:
        program: what the user types, for example ``python -m train``.
        commands: one function, or one a subcommand; its signature and docstring become the command line.
        summary: the first paragraph of ``--help``.
    """
    # Orbax logs each step of a save at level INFO, and pages about an error before it raises it.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # A notebook names its own backend to all that it starts, where that may not be installed. Commands open no window.
    os.environ.pop("MPLBACKEND", None)
    finish(functools.partial(_call, program, commands, summary))


def finish(command: Callable[[], int]) -> NoReturn:
    """Exit with the command's exit code; print one line about a failure that the user can fix."""
    _prepare_streams()
    try:
        exit_code = _run(command)
        sys.stdout.flush()
    except Exception as error:
        output_error = _output_error() or error
        # Where output isn't buffered, nothing is left of it that could fail again.
        if not isinstance(output_error, OSError) or output_error.errno not in _NO_OUTPUT or output_error.filename:
            raise
        exit_code = _give_up_output(output_error)
    sys.exit(exit_code)


def _run(command: Callable[[], int]) -> int:
    try:
        for argument in sys.argv[1:]:
            if "\0" in argument:
                raise UserError(f"{argument!r}: contains a NUL character; remove it")
        return command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        # XLA says it with an error of its own kind.
        if isinstance(error, RuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        reason = str(error).partition("\n")[0]
        print(f"error: the memory is full ({reason}); choose smaller sizes, or fewer at once", file=sys.stderr)
        return 1
    except UserError as error:
        # A command may take the output's fault for that of a file.
        if _output_error():
            raise
        return _fail(error)
    except OSError as error:
        # Even `Path.exists` raises it, for a folder that may not be searched or a name that is too long. Without a name
        # it is no file's.
        if error.filename is None or error.errno not in _WAYS_OUT:
            raise
        return _fail(UserError(f"{os.fsdecode(error.filename)}: {error.strerror}; {_WAYS_OUT[error.errno]}"))


def replace_option(options: Options, field: str, value: str) -> Options:
    """Return the dataclass with one field changed, parsed as `--FIELD VALUE` would be; a flag takes True or False.

    Raises:
        UserError: the field doesn't take the value; the message is the reason alone.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            arguments = [f"--{field.replace('_', '-')}={value}"]
            return tyro.cli(type(options), default=options, args=arguments, config=(tyro.conf.FlagConversionOff,))
    except SystemExit:
        raise UserError(_message(stderr.getvalue())) from None


def _call(program: str, commands: Mapping[str, Callable[..., Any]] | Callable[..., Any], summary: str) -> int:
    """Run the command and return its exit code; commands return None (done) or an exit code."""
    options: dict[str, Any] = {
        "prog": program,
        "description": summary,
        "config": (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs),
    }
    stderr = io.StringIO()
    try:
        # Parsing and calling are two steps, so that what the command itself prints is never swallowed.
        with contextlib.redirect_stderr(stderr):
            if callable(commands):
                command = tyro.cli(_deferred(commands), **options)
            else:
                deferred = {name: _deferred(function) for name, function in commands.items()}
                command = tyro.extras.subcommand_cli_from_dict(deferred, **options)
    except SystemExit as error:
        if error.code:
            raise UserError(f"{_message(stderr.getvalue())} (see: {program} --help)") from None
        return 0
    return command() or 0


def _deferred(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A function with the signature of `function` that returns the call instead of making it."""

    @functools.wraps(function)
    def capture(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return lambda: function(*args, **kwargs)

    # tyro, which reads the docstring of `function` itself, would keep the line breaks within the help of an option.
    function.__doc__ = re.sub(r"(?<=\S)\n {8,}(?=\S)", " ", inspect.cleandoc(function.__doc__ or ""))
    return capture


def _message(box: str) -> str:
    """The message in the box that tyro draws around an error, as one line.

    The box holds a title, a rule, the message, a rule and more; its lines are of ASCII where the terminal's are.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    titled = re.sub(r"^╭─ (.*?) ─*╮$", r"\1\n────", plain, count=1, flags=re.MULTILINE)
    _, message, *_ = re.split(r"^[ │]*[─-]{4,}[ │]*$", titled, flags=re.MULTILINE)
    line = " ".join(message.replace("│", " ").split())
    for pattern, plain in _PLAIN:
        line = re.sub(pattern, plain, line)
    # What a configuration refuses begins with its field.
    return re.sub(r"^([a-z]\w*)(?= \S+: )", lambda field: "--" + field[1].replace("_", "-"), line)


# tyro's words, and a colleague's.
_PLAIN = (
    (r"^Error parsing (?:\w[\w.-]*: )?", ""),  # The name of a configuration; an option begins with a dash and stays.
    (r"^(--\S+): invalid literal for int\(\) with base 10: '(.*)'$", r"\1 \2: must be a whole number"),
    (r"^(--\S+): could not convert string to float: '(.*)'$", r"\1 \2: must be a number"),
    (r"^invalid choice '(.*)' for argument '(--\S+)'\. Expected one of \((.*?),?\)\.$", r"\2 \1: must be one of \3"),
)


def _fail(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _prepare_streams() -> None:
    """Let whatever is printed be printable, and have somewhere to go where the user has closed the output."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal has no sign for, or bytes of a file's name that are no text.
            stream.reconfigure(errors="backslashreplace")


def _output_error() -> OSError | None:
    """Why nothing can be written to stdout any more; None while it can."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _give_up_output(error: OSError) -> int:
    # What reads it has closed it, as `head` does, which is no fault.
    if not isinstance(error, BrokenPipeError):
        print(f"error: standard output: {error.strerror}; redirect it elsewhere", file=sys.stderr)
    # So that Python's own flush at exit stays silent.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
