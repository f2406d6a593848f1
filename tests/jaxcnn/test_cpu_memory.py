"""Memory that is freed and asked for again comes without the kernel's help."""

import platform
import subprocess
import sys

import pytest

# Pages that are wiped while a jitted function writes and frees 64 MB for the fourth time.
COUNT_FAULTS = """
import resource
import sys
import jax
import jax.numpy as jnp
from jaxcnn.cpu import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
fill = jax.jit(lambda x: jnp.full((4096, 4096), x))
for number in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert fill(float(number))[-1, -1] == number
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def faults(argument):
    ran = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, argument], capture_output=True, text=True, check=True, timeout=120
    )
    return int(ran.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again():
    usual, kept = faults("usual"), faults("keep")
    assert kept < usual / 10
