"""Faster than for users: programs are compiled quickly rather than well, and no file waits for the disk."""

import os

import jax
from jax._src import compiler


def use_older_emitters():
    """From here on, XLA's older emitters compile what is not to be optimized: they take a third of the time.

    Each program is compiled in one piece, too: in many, as for the cores of a larger machine, takes a fifth longer.

    JAX has this option for single programs (train/network.py has one), but none for all of them. XLA has had no older
    emitters since JAX 0.12, and takes the option for an error.
    """
    if jax.__version_info__ >= (0, 12):
        return
    options_of_a_program = compiler.get_compile_options

    def with_older_emitters(*arguments, backend=None, **options):
        found = options_of_a_program(*arguments, backend=backend, **options)
        if jax.config.read("jax_disable_most_optimizations") and getattr(backend, "platform", None) == "cpu":
            found.env_option_overrides = [
                *found.env_option_overrides,
                ("xla_cpu_use_fusion_emitters", False),
                ("xla_cpu_parallel_codegen_split_count", 1),
            ]
        return found

    compiler.get_compile_options = with_older_emitters


def leave_files_to_the_kernel():
    """From here on nothing waits until a file is on the disk: that is for power cuts, and processes are only killed."""
    os.fsync = lambda _: None
