"""Memory that is freed and asked for again comes without the kernel's help."""

import platform
import subprocess
import sys

import pytest

# Pages that are wiped while a jitted function writes and frees side x side numbers, at the least of four times: now and
# then something small takes a place in what was freed, and the next large piece doesn't fit in there any more.
pytestmark = pytest.mark.optimized
COUNT_FAULTS = """
import resource
import sys
import jax
import jax.numpy as jnp
from jaxcnn.cpu import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
side = int(sys.argv[2])
fill = jax.jit(lambda x: jnp.full((side, side), x))
faults = []
for number in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert fill(float(number))[-1, -1] == number
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


def faults(argument, side):
    command = [sys.executable, "-c", COUNT_FAULTS, argument, str(side)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again():
    usual, kept = faults("usual", side=4096), faults("keep", side=4096)
    assert kept < usual / 10


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_more_than_two_gigabytes_are_kept_as_well():
    # 2.3 GB, more than a C int can count; of its 562,500 pages hardly one is wiped again.
    assert faults("keep", side=24_000) < 5_000


RELEASE = """
import resource
from pathlib import Path
import jax
import jax.numpy as jnp
from jaxcnn.cpu import keep_freed_memory, release_freed_memory

def megabytes():
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * resource.getpagesize() / 1e6

keep_freed_memory()
jax.jit(lambda x: jnp.full((4096, 4096), x))(1.0).block_until_ready()
kept = megabytes()
release_freed_memory()
print(kept - megabytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_is_free_can_be_given_back():
    ran = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True)
    # The 67 MB of the numbers are freed.
    assert float(ran.stdout) > 60
