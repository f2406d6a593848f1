"""Load a recipe that a user has written: MY.py:NAME is run as the user's own Python code."""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from convert.mapping import TableError
from convert.recipe import Recipe
from jaxcnn.errors import UserError


def load_recipe(address: str) -> Recipe:
    """Load the recipe NAME from MY.py:NAME.

    Raises:
        UserError: there is no such file, running it fails, or the name is none of a recipe.
    """
    file, _, name = address.rpartition(":")
    path = Path(file).absolute()
    if not file or path.suffix != ".py":
        raise UserError(f"{address}: is not of the form MY.py:NAME; give the file and the name of the recipe")
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the Python file that holds the recipe")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As for a script: what lies beside it can be imported, and its classes know their module.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[path.stem] = module
    with told_in_one_line(path):
        spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not isinstance(found, Recipe):
        raise UserError(f"{path}: {name} is {type(found).__name__}, not a convert.recipe.Recipe; name one")
    return found


@contextlib.contextmanager
def told_in_one_line(path: Path) -> Iterator[None]:
    """Report an error in the user's code, in the file or beside it, with its last line there, if there is one.

    Raises:
        UserError: in the place of what the user's code raises.
    """
    try:
        yield
    except TableError as error:
        raise UserError(f"{path}: {error}") from error
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, SyntaxError):
            raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}; correct it") from error
        # A network may have been imported from a file beside it.
        folder = path.resolve().parent
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
        where = (
            f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else f"{path}: its networks fail"
        )
        raise UserError(f"{where}: {type(error).__name__}: {error!s:.300}; correct it") from error
