"""Faster than for users: programs are compiled quickly rather than well, and no file waits for the disk."""

import os

import jax
from jax._src import compiler


def compile_quickly():
    """From here on, what is not to be optimized is compiled in one piece, by XLA's older emitters where there are any.

    In several pieces, as for the cores of a larger machine, it takes a fifth longer, and the newer emitters take three
    times as long. JAX has such options for single programs (train/network.py has one), but none for all of them. Since
    JAX 0.12 XLA has had no older emitters, and takes that option for an error.
    """
    quicker = [("xla_cpu_parallel_codegen_split_count", 1)]
    if jax.__version_info__ < (0, 12):
        quicker.append(("xla_cpu_use_fusion_emitters", False))
    options_of_a_program = compiler.get_compile_options

    def with_quicker_ones(*arguments, backend=None, **options):
        found = options_of_a_program(*arguments, backend=backend, **options)
        if jax.config.read("jax_disable_most_optimizations") and getattr(backend, "platform", None) == "cpu":
            found.env_option_overrides = [*found.env_option_overrides, *quicker]
        return found

    compiler.get_compile_options = with_quicker_ones


def leave_files_to_the_kernel():
    """From here on nothing waits until a file is on the disk: that is for power cuts, and processes are only killed."""
    os.fsync = lambda _: None
