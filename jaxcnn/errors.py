"""What is raised for a user's mistake: a ValueError whose message the commands print as one line, with exit code 2."""

import contextlib
import importlib.util
from collections.abc import Iterator


class UserError(ValueError):
    """The user's input is wrong.

    The message is one line that names the file or the value, says what is wrong with it, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return a message as one printable line, whatever it quotes of a file or of another package's message."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return text with escapes for what can't be printed: line breaks, codes of a terminal, bytes that are no text."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


@contextlib.contextmanager
def importing(package: str, *, needed_by: str, extra: str) -> Iterator[None]:
    """Raise a UserError that tells how to install a package of an extra, where importing it fails in the block."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{needed_by}: need {package}, which is not installed: pip install -c constraints.txt -e '.[{extra}]'"
        ) from error


def is_installed(module: str) -> bool:
    """Whether a module can be imported, found without importing it."""
    with contextlib.suppress(ModuleNotFoundError):  # Not even the package that it would lie in.
        return importlib.util.find_spec(module) is not None
    return False
