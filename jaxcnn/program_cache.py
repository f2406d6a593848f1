"""Compiled programs are kept from one process to the next, so that only the first one waits for the compiler."""

import jax

from jaxcnn.download import cache_folder


def keep_programs() -> None:
    """Keep what takes more than a second to compile in ~/.cache/jaxcnn/programs, by JAX's persistent cache.

    To be called before the first compilation. A folder that the user has named (JAX_COMPILATION_CACHE_DIR) stays that.
    A program is found again only with the same code, JAX and processor.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
