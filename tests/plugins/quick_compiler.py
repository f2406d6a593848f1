"""Programs that are compiled quickly rather than well, because most of the tests' time is compilation."""

import jax
from jax._src import compiler


def use_older_emitters():
    """From here on, XLA's older emitters compile what is not to be optimized: they take a third of the time.

    JAX has this option for single programs (train/network.py has one), but none for all of them. XLA has had no older
    emitters since JAX 0.12, and takes the option for an error.
    """
    if jax.__version_info__ >= (0, 12):
        return
    options_of_a_program = compiler.get_compile_options

    def with_older_emitters(*arguments, backend=None, **options):
        found = options_of_a_program(*arguments, backend=backend, **options)
        if jax.config.read("jax_disable_most_optimizations") and getattr(backend, "platform", None) == "cpu":
            found.env_option_overrides = [*found.env_option_overrides, ("xla_cpu_use_fusion_emitters", False)]
        return found

    compiler.get_compile_options = with_older_emitters
