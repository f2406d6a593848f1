"""Compiled programs are kept from one process to the next, so that only the first one waits for the compiler."""

from pathlib import Path

import jax
from filelock import FileLock

from jaxcnn.download import cache_folder

# Of all programs; JAX deletes the least recently used. The step of a SimpleCNN takes 1 MB.
MOST_BYTES = 2 * 10**9
_LOCK_SECONDS = 10


def keep_programs() -> None:
    """Keep what takes more than a second to compile in ~/.cache/jaxcnn/programs, by JAX's persistent cache.

    To be called before the first compilation. A folder that the user has named (JAX_COMPILATION_CACHE_DIR) stays that,
    and so does a size (JAX_COMPILATION_CACHE_MAX_SIZE). Where the folder can't be written, nothing is kept. A program
    is found again only with the same code, JAX and processor.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    folder = cache_folder() / "programs"
    try:
        _remove_unfinished(folder)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if jax.config.jax_compilation_cache_max_size == -1:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)


def _remove_unfinished(folder: Path) -> None:
    """Delete programs whose writer was killed: JAX would neither replace them nor, without their times, any others.

    It writes a program's time of use last, under the same lock. Without a bound it writes none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lockfile", timeout=_LOCK_SECONDS):
        for program in folder.glob("*-cache"):
            if not program.with_name(program.name.removesuffix("-cache") + "-atime").is_file():
                program.unlink()
