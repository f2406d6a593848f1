"""What every test shares: strict dtype promotion, how programs are compiled, and the way to real data."""

import gc
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest

# For `make fuzz`.
hypothesis.settings.register_profile("fuzz", max_examples=20_000)
# A silent promotion to a wider dtype is a bug on an accelerator; in the tests it is an error.
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Most of the tests' time is compilation. What one test compiles the next one finds, here and in the processes that
# tests start, and XLA takes no time to optimize it, except in tests that are marked `optimized`.
_PROGRAMS = tempfile.TemporaryDirectory(prefix="jaxcnn-tests-")
# JAX's cache takes one process at a time; the phantom's images are for xdist's workers together, who inherit the name.
os.environ.setdefault("JAXCNN_TESTS_PHANTOM", _PROGRAMS.name)
_COMPILER = {
    "jax_compilation_cache_dir": _PROGRAMS.name,
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    "jax_disable_most_optimizations": True,
}
# Threads of XLA, and of NumPy's and PyTorch's libraries, of which xdist's workers have enough together: more would wait
# for one another, and some do that at full load.
for threads in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
for name, value in _COMPILER.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def pytest_addoption(parser):
    parser.addoption("--torch-free", action="store_true", help="test as if torch were not installed")


class _NoTorch:
    """Finds that torch is not there, before others find it."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # noqa: ARG004
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")


def pytest_configure(config):
    if config.getoption("--torch-free"):
        sys.meta_path.insert(0, _NoTorch)


def _has_torch():
    return _NoTorch not in sys.meta_path and importlib.util.find_spec("torch") is not None


def pytest_ignore_collect(collection_path):
    """Whatever compares with torch's networks is left out without torch; other tests skip where they need it."""
    tests = Path(__file__).parent
    compares = any(map(collection_path.is_relative_to, (tests / "convert", tests / "docs" / "test_conversion.py")))
    return True if compares and not _has_torch() else None


def pytest_report_header():
    return None if _has_torch() else "torch is not installed: tests/convert and docs/test_conversion.py are left out"


def pytest_sessionstart():
    # Not above: the first import of the project must come after the checks of its signatures are in place.
    from phantoms import keep_drawn
    from quicker import compile_quickly, leave_files_to_the_kernel

    compile_quickly()
    leave_files_to_the_kernel()
    keep_drawn()
    gc.set_threshold(100_000, 20, 100)


def pytest_collection_finish():
    # What was imported by now stays: the garbage collector need not go through it again.
    gc.freeze()


def pytest_unconfigure():
    # Nor through what the process leaves behind when it ends, which takes seconds.
    gc.freeze()


def pytest_runtest_setup(item):
    """Optimize the programs of tests that are marked so, whatever was compiled before."""
    quick = item.get_closest_marker("optimized") is None
    if jax.config.read("jax_disable_most_optimizations") != quick:
        jax.config.update("jax_disable_most_optimizations", quick)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(quick)
        jax.clear_caches()


@pytest.fixture
def run_train(monkeypatch, capsys):
    """Run `python -m train` with these words; gives the exit code, stdout and stderr."""
    from train.__main__ import main

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real scans and weights (JAXCNN_SHARED, or ../shared beside the checkout)."""
    folder = Path(os.environ.get("JAXCNN_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set JAXCNN_SHARED)")
    return folder
