"""Compiled programs are kept from one process to the next, so that only the first one waits for the compiler."""

from pathlib import Path

import jax

from jaxcnn.download import cache_folder

_CPU_INFO = Path("/proc/cpuinfo")


def keep_programs() -> None:
    """Keep what takes more than a second to compile in ~/.cache/jaxcnn/programs, by JAX's persistent cache.

    To be called before the first compilation and after `jax.distributed.initialize`. A folder that the user has named
    (JAX_COMPILATION_CACHE_DIR) stays that. A program is found again only with the same code, JAX and processor.
    """
    if jax.config.jax_compilation_cache_dir is None and not _refuses_own_programs():  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))


def _refuses_own_programs() -> bool:
    """Whether XLA would reject its own programs, with a page of error messages each.

    It does on CPUs with AVX-512, where it takes two hints to its compiler for features that the processor must have:
    https://github.com/openxla/xla/issues/44565
    """
    return jax.default_backend() == "cpu" and _CPU_INFO.is_file() and "avx512f" in _CPU_INFO.read_text()
