"""What one process compiles the next one finds, within a bound, whatever became of those before."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from kills import training

from jaxcnn.program_cache import MOST_BYTES, keep_programs


@pytest.fixture
def no_folder(monkeypatch, tmp_path):
    """The user has named no folder and no size; the cache's address is put back afterwards."""
    before = {
        name: getattr(jax.config, name) for name in ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")
    }
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "jaxcnn" / "programs"
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_our_folder_unless_the_user_has_named_one(no_folder):
    keep_programs()
    assert jax.config.jax_compilation_cache_dir == str(no_folder)
    assert jax.config.jax_compilation_cache_max_size == MOST_BYTES
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir == "elsewhere"


def test_a_size_that_the_user_has_set_stays(no_folder):
    del no_folder
    jax.config.update("jax_compilation_cache_max_size", 5)
    keep_programs()
    assert jax.config.jax_compilation_cache_max_size == 5


def test_a_program_whose_writer_was_killed_goes_and_a_whole_one_stays(no_folder):
    no_folder.mkdir(parents=True)
    for name in ("whole-cache", "whole-atime", "half-cache"):
        (no_folder / name).write_bytes(b"12345678")
    keep_programs()
    assert {path.name for path in no_folder.glob("*-*")} == {"whole-cache", "whole-atime"}


def test_where_nothing_can_be_written_nothing_is_kept(no_folder):
    no_folder.parent.write_bytes(b"a file where the folder should be")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir is None


def use_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder


NO_FOLDER = {"jax_compilation_cache_dir": None}


@pytest.mark.slow
def test_a_second_run_compiles_nothing_that_the_first_one_has_compiled(processes, tmp_path):
    here = partial(use_cache, str(tmp_path))
    kept = []
    for name in ("first", "second"):
        run = processes.start(training(tmp_path / name), options=NO_FOLDER, before=here).wait()
        assert run.code == 0, run
        kept.append({path.name for path in (tmp_path / "jaxcnn" / "programs").glob("*-cache")})
        # XLA writes a page of errors if it refuses a program that it has kept.
        assert "Loading XLA:CPU AOT result" not in run.err, run.err
    assert kept[0]
    assert kept[0] == kept[1]


def compile_some(count: int) -> None:
    """Programs of some size, and the same ones again."""
    keep_programs()
    for number in list(range(count)) * 2:
        assert jax.jit(lambda x, number=number: jnp.sin(x) + number)(1.0) == jnp.sin(1.0) + number
        jax.clear_caches()


@pytest.mark.slow
def test_processes_that_start_at_once_share_what_is_kept_within_its_bound(processes, tmp_path):
    bound = {**NO_FOLDER, "jax_compilation_cache_max_size": 20_000}
    here = partial(use_cache, str(tmp_path))
    started = [processes.start(partial(compile_some, 10), options=bound, before=here) for _ in range(2)]
    for process in started:
        finished = process.wait()
        assert (finished.code, finished.err) == (0, ""), finished
    kept = list((tmp_path / "jaxcnn" / "programs").glob("*-cache"))
    assert len(kept) > 1
    assert sum(path.stat().st_size for path in kept) <= 20_000
    again = processes.start(partial(compile_some, 10), options=bound, before=here).wait()
    assert (again.code, again.err) == (0, ""), again


@pytest.mark.slow
def test_a_damaged_program_is_compiled_again_with_a_warning(processes, tmp_path):
    here = partial(use_cache, str(tmp_path))
    assert processes.start(partial(compile_some, 1), options=NO_FOLDER, before=here).wait().code == 0
    for path in (tmp_path / "jaxcnn" / "programs").glob("*-cache"):
        path.write_bytes(b"damaged")
    finished = processes.start(partial(compile_some, 1), options=NO_FOLDER, before=here).wait()
    assert finished.code == 0, finished
    assert "Error reading persistent compilation cache entry" in finished.err
