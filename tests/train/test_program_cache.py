"""What one process compiles the next one finds."""

import os
from functools import partial

import jax
import pytest
from kills import training

from jaxcnn.program_cache import keep_programs


@pytest.fixture
def no_folder(monkeypatch, tmp_path):
    """The user has named no folder; the cache's address is put back afterwards."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("no_folder")
def test_programs_are_kept_in_our_folder_unless_the_user_has_named_one(tmp_path):
    keep_programs()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxcnn" / "programs")
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir == "elsewhere"


def use_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder


@pytest.mark.slow
def test_a_second_run_compiles_nothing_that_the_first_one_has_compiled(processes, tmp_path):
    here = partial(use_cache, str(tmp_path))
    kept = []
    for name in ("first", "second"):
        run = processes.start(
            training(tmp_path / name), options={"jax_compilation_cache_dir": None}, before=here
        ).wait()
        assert run.code == 0, run
        kept.append({path.name for path in (tmp_path / "jaxcnn" / "programs").glob("*-cache")})
        # XLA writes a page of errors if it refuses a program that it has kept.
        assert "Loading XLA:CPU AOT result" not in run.err, run.err
    assert kept[0]
    assert kept[0] == kept[1]
