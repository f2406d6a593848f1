"""Write files in the background, while the devices go on."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax


class Behind:
    """Does what it is given in another thread, one thing after the other, and nothing more after one has failed."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._last: Future[None] | None = None

    def do(self, action: Callable[[], object]) -> None:
        """Do it some time; what it raises is raised by `wait`.

        At once where there are several processes: what they write together must not get between the steps.
        """
        if jax.process_count() > 1:
            action()
        else:
            self._last = self._thread.submit(self._after, self._last, action)

    def wait(self) -> None:
        """Wait until all is done, and raise what the first that failed has raised."""
        if self._last is not None:
            self._last.result()

    @staticmethod
    def _after(before: Future[None] | None, action: Callable[[], object]) -> None:
        if before is not None:
            before.result()
        action()


@contextlib.contextmanager
def write_behind() -> Iterator[Behind]:
    """Something that writes while the devices go on; all is written when the block ends, however it does."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        behind = Behind(thread)
        try:
            yield behind
        finally:
            behind.wait()
