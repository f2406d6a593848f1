"""Commands in processes of their own, which can be killed, limited, and given other devices.

The fork server of `multiprocessing` imports the commands once, so that a process costs no seconds for that; and what
one process compiles, the next finds in the tests' cache. Each is a whole process otherwise: it sets up JAX by itself.
"""

import dataclasses
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import jax
from phantoms import keep_drawn
from quicker import compile_quickly, leave_files_to_the_kernel
from tiny import TINY

from jaxcnn.models import MODELS

# What takes seconds to import: JAX and whatever the commands use.
_IMPORTED = ["train.__main__", __name__]
# In seconds of a machine that does nothing else.
TIMEOUT = 600.0


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a process ended; `code` is the negative number of the signal that killed it, if one did."""

    code: int
    out: str
    err: str


@dataclasses.dataclass(frozen=True)
class Started:
    """A process that runs, and the files that it prints to."""

    process: BaseProcess
    out: Path
    err: Path

    def wait(self) -> Finished:
        """How it ends; it is killed, and that is an error, when it doesn't within the time that it may take.

        Where more processes want to run than there are cores, time passes as much slower.
        """
        waited = 0.0
        while self.process.is_alive() and waited < TIMEOUT:
            self.process.join(1)
            waited += 1 / max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            printed = self.out.read_text("utf-8") + self.err.read_text("utf-8")
            raise TimeoutError(f"no end after {TIMEOUT} s\n{printed}")
        return Finished(self.process.exitcode, self.out.read_text("utf-8"), self.err.read_text("utf-8"))


@dataclasses.dataclass(frozen=True)
class Processes:
    """Starts processes.

    Attributes:
        folder: for what they print.
    """

    folder: Path

    def start(
        self,
        call: Callable[[], Any],
        *,
        options: Mapping[str, Any] | None = None,
        before: Callable[[], Any] | None = None,
    ) -> Started:
        """Start a process.

        Args:
            call: what it does; travels there by pickle, as `before` does.
            options: of `jax.config`, such as {"jax_num_cpu_devices": 8}.
            before: what it does first.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        number = len(list(self.folder.glob("*.out")))
        out, err = (self.folder / f"{number}.{suffix}" for suffix in ("out", "err"))
        for path in (out, err):
            path.touch()
        compiler = {
            "jax_disable_most_optimizations": jax.config.read("jax_disable_most_optimizations"),
            "jax_persistent_cache_min_compile_time_secs": 0.0,
        }
        process = context.Process(target=_run, args=(call, out, err, compiler | dict(options or {}), before))
        process.start()
        return Started(process, out, err)


def command(module: str, *arguments: str) -> Callable[[], None]:
    """`python -m package arguments`, given the name of the package's main module."""
    return partial(_command, module, arguments)


def _command(module: str, arguments: tuple[str, ...]) -> None:
    sys.argv = [module, *arguments]
    sys.modules[module].main()


def _run(
    call: Callable[[], Any],
    out: Path,
    err: Path,
    options: Mapping[str, Any],
    before: Callable[[], Any] | None,
) -> None:
    # The fork server's objects stay: the garbage collector need not go through them, nor copy their pages.
    gc.freeze()
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    for name, value in options.items():
        jax.config.update(name, value)
    MODELS["tiny"] = TINY
    compile_quickly()
    leave_files_to_the_kernel()
    keep_drawn()
    if before is not None:
        before()
    try:
        call()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
