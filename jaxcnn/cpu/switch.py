"""The switch between the CPU's own methods and XLA's: to compare the two, and to find out whose fault something is."""

import contextlib
import contextvars
from collections.abc import Iterator

_xla_only = contextvars.ContextVar("xla_only", default=False)


@contextlib.contextmanager
def xla_only() -> Iterator[None]:
    """Within the block, what is traced is XLA's own convolution and max-pool, on a CPU too.

    It is read while JAX traces. A function that `jax.jit` has traced before stays what it was: jit a new one.
    """
    token = _xla_only.set(True)
    try:
        yield
    finally:
        _xla_only.reset(token)


def is_xla_only() -> bool:
    """Whether the code runs inside `xla_only`."""
    return _xla_only.get()
