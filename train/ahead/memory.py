"""The memory that a compiled program needs, and the largest program that fits into a device's."""

import math
from collections.abc import Callable
from typing import Any

_ATTEMPTS = 4


def needed_bytes(memory: Any) -> int:
    """What a program needs on each device: arguments, results, all in between, and its code.

    Args:
        memory: `jax.stages.Compiled.memory_analysis()`, which is one device's.
    """
    # What the program gives back lies where its arguments were, as far as these are donated.
    given_back = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return int(held + given_back)


def largest_fitting(
    needed: Callable[[int], float], limit: float, start: int, step: int = 1, most: float = math.inf
) -> int:
    """The largest size of a program that fits, near enough, and was compiled to see that it does.

    Memory is nearly linear in the size, so that two compilations tell where to look and a third one whether it is so.

    Args:
        needed: compiles the program of a size, and tells the bytes that it needs; infinity where it can't be compiled.
        limit: bytes that there are.
        start: the size to begin with, a multiple of `step`.
        step: sizes are multiples of it.
        most: a larger one is of no use.

    Returns:
        A size of which `needed` is at most `limit`; 0 where none is found.
    """
    known: dict[int, float] = {}

    def compile_for(size: int) -> bool:
        if size not in known:
            known[size] = needed(size)
        return known[size] <= limit

    size = start
    while not compile_for(size) and math.isinf(known[size]) and size > step:
        size = max(1, size // 2 // step) * step
    if known[size] <= limit and size >= most:
        return size
    compile_for(max(1, size // 2 // step) * step if size > step else 2 * step)
    for attempt in range(_ATTEMPTS):
        compiled = sorted(item for item in known.items() if math.isfinite(item[1]))
        if len(compiled) < 2:
            break
        (small, at_small), (large, at_large) = compiled[0], compiled[-1]
        each = (at_large - at_small) / (large - small)
        if each <= 0:
            break
        # A little less each time, and more so where the compiler doesn't say by how much it was too large.
        less = 0.02 * attempt + 0.05 * (len(known) - len(compiled))
        size = int(min(most, large + (limit * (1 - less) - at_large) / each)) // step * step
        if compile_for(max(step, size)):
            break
    return max((size for size, bytes_ in known.items() if bytes_ <= limit), default=0)
