"""How signatures are checked while the tests run: as beartype does, and an int may stand for a float (PEP 484)."""

import functools

from beartype import BeartypeConf, beartype

_CONF = BeartypeConf(is_pep484_tower=True)
_CHECKED = {}


def check(function):
    """Check a function that has nothing but its signature, as jaxtyping makes one of each function of the project.

    Beartype takes milliseconds for a signature: it is asked at the first call, since most functions are imported and
    not called, and once for all functions that one line defines, such as those that the trace of a program makes anew.
    """
    code = function.__code__
    kinds = (code.co_posonlyargcount, code.co_argcount, code.co_kwonlyargcount, code.co_flags, code.co_varnames)
    key = (function.__module__, function.__qualname__, kinds, tuple(function.__annotations__.items()))

    @functools.wraps(function)
    def call(*args, **kwargs):
        if key not in _CHECKED:
            _CHECKED[key] = beartype(function, conf=_CONF)
        return _CHECKED[key](*args, **kwargs)

    return call
