"""What one process compiles the next one finds, unless the processor is one whose programs XLA refuses."""

import os
from functools import partial

import jax
import pytest
from kills import training

from jaxcnn import program_cache
from jaxcnn.program_cache import keep_programs


@pytest.fixture
def cpu_flags(monkeypatch, tmp_path):
    """A processor with these flags, and no folder of the user's; the cache's address is put back afterwards."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(program_cache, "_CPU_INFO", tmp_path / "cpuinfo")
    jax.config.update("jax_compilation_cache_dir", None)
    yield lambda flags: (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_our_folder_unless_the_user_has_named_one(cpu_flags, tmp_path):
    cpu_flags("sse avx2")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxcnn" / "programs")
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir == "elsewhere"


def test_where_xla_would_refuse_them_none_are_kept(cpu_flags):
    cpu_flags("sse avx2 avx512f avx512bw")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir is None


def use_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder


@pytest.mark.slow
@pytest.mark.skipif(program_cache._refuses_own_programs(), reason="XLA refuses its own programs on this processor")
def test_a_second_run_compiles_nothing_that_the_first_one_has_compiled(processes, tmp_path):
    here = partial(use_cache, str(tmp_path))
    kept = []
    for name in ("first", "second"):
        run = processes.start(
            training(tmp_path / name), options={"jax_compilation_cache_dir": None}, before=here
        ).wait()
        assert run.code == 0, run
        kept.append({path.name for path in (tmp_path / "jaxcnn" / "programs").glob("*-cache")})
    assert kept[0]
    assert kept[0] == kept[1]
