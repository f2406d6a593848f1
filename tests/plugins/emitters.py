"""Which of XLA's ways to emit code for a CPU the tests' programs are compiled by.

The newer one, of MLIR, takes twice the time of all else that is done for a program. It is left out, except where
programs are optimized: in tests that are marked so they are compiled as for users.
"""

import os

import jax
from jax._src import compiler

_FLAG = "xla_cpu_use_fusion_emitters"


def leave_out_newer_emitters() -> None:
    """From here on, here and in the processes that are started here; to be called before JAX compiles anything."""
    given, flags = compiler.get_compile_options, os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}=false"

    def get_compile_options(*arguments, env_options_overrides=None, **options):
        if not jax.config.read("jax_disable_most_optimizations"):
            env_options_overrides = {_FLAG: True, **(env_options_overrides or {})}
        return given(*arguments, env_options_overrides=env_options_overrides, **options)

    compiler.get_compile_options = get_compile_options
