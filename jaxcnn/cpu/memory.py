"""Memory that a step frees and the next one asks for again."""

import ctypes
from collections.abc import Callable

import jax

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# As a size, the largest there is: a number of bytes would end at 2 GB, which the step of a large batch exceeds.
_NEVER = -1


def keep_freed_memory() -> None:
    """Let the process keep what it frees, instead of giving it back to the kernel after every step.

    A step takes its temporary memory in one piece, hundreds of megabytes of it, from which the kernel must first wipe
    page by page what others left there: up to a third of the step's time on a CPU. To be called before JAX's first use.

    One heap for all threads, no piece outside of it, and nothing is given back. Computations run in the thread that
    asks for them, or the memory of two steps would be held at once. Where the C library isn't glibc, nothing changes.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_ARENA_MAX, 1)):
        mallopt(parameter, value)
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def release_freed_memory() -> None:
    """Give the kernel what is free now: what the compiler needed would stay beside what a step takes in one piece.

    Where the C library isn't glibc, nothing happens.
    """
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # No such function; Windows has no such library either.
        return None
