"""Write JSON files completely, and check their types when reading."""

import contextlib
import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from jaxcnn.errors import UserError
from jaxcnn.runs.files import whole_file

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Number = (
    Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)] | None
)
"""For schemas. What is larger comes from no run, and sums and pictures of it overflow; null is what isn't finite."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file; see `json_text`."""
    with whole_file(path) as temporary:
        temporary.write_text(json_text(content, indent=2) + "\n", "utf-8")


def json_text(content: Any, indent: int | None = None) -> str:
    """Return the content as JSON, which has no NaN and no infinity: they become null."""
    return json.dumps(_with_nulls(content), indent=indent, allow_nan=False)


def _with_nulls(content: Any) -> Any:
    match content:
        case float():
            return content if math.isfinite(content) else None
        case dict():
            return {key: _with_nulls(value) for key, value in content.items()}
        case list() | tuple():
            return [_with_nulls(value) for value in content]
    return content


def read_json(path: Path, schema: Any, *, way_out: str) -> Any:
    """Read a file.

    Args:
        schema: the type that it must have, as msgspec takes it; keys that a TypedDict doesn't name may have any.
        way_out: what to do about a file that can't be read, for the message.

    Raises:
        UserError: it can't be read, or is damaged, or has other types.
    """
    with damage_as_user_error(path, way_out):
        return _parse(_read_text(path), schema)


def read_json_lines(path: Path, schema: Any, *, way_out: str) -> list[Any]:
    """Read the lines of a file; see `read_json`."""
    with damage_as_user_error(path, way_out):
        return [_parse(line, schema) for line in _read_text(path).splitlines()]


@contextlib.contextmanager
def damage_as_user_error(path: Path, way_out: str) -> Iterator[None]:
    """Report any error while a file is read in one line; the block should contain nothing else.

    Raises:
        UserError: in the place of any other exception.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}; {way_out}") from error
    except RecursionError as error:
        raise UserError(f"{path}: is damaged (it is nested too deep); {way_out}") from error
    except Exception as error:  # Parsers of files that anybody may have written raise many kinds.
        reason = textwrap.shorten(str(error).split("\n")[0], 200) or type(error).__name__
        raise UserError(f"{path}: is damaged ({reason}); {way_out}") from error


def _read_text(path: Path) -> str:
    # A pipe or a device in its place may never end.
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    return path.read_bytes().decode()


def _parse(text: str, schema: Any) -> Any:
    # Older versions wrote NaN and Infinity as Python does.
    content = json.loads(text, parse_constant=lambda _: None)
    msgspec.convert(content, schema)
    return content
