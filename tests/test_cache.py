"""The compilation cache: where it lies, who may switch it, and that it is used."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import zoo


@pytest.fixture
def untold(monkeypatch, tmp_path):
    """JAX without a cache, as users have it, and a cache folder of the zoo."""
    told = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", told)


CODE = """
import jax, zoo
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append("cache_hits" in name))
print(zoo.enable_compilation_cache())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 3)(1.0)
print(sum(hits), jax.config.jax_compilation_cache_max_size)
"""


def compiled(cache: Path) -> list[str]:
    """What a process prints that enables the cache and compiles: a folder, hits, a limit."""
    env = {**os.environ, "ZOO_CACHE": str(cache), "ZOO_COMPILE_CACHE": "3M"}
    del env["JAX_COMPILATION_CACHE_DIR"]
    run = [sys.executable, "-W", "error", "-c", CODE]
    return subprocess.run(run, env=env, check=True, text=True, capture_output=True).stdout.split()


def test_the_next_process_finds_what_was_compiled(tmp_path):
    folder, hits, limit = compiled(tmp_path)
    assert (folder, hits, limit) == (str(tmp_path / "xla"), "0", str(3 * 2**20))
    (tmp_path / "xla" / "jit_half_written-cache").touch()  # by a process that was killed
    assert int(compiled(tmp_path)[1]) >= 1
    assert not (tmp_path / "xla" / "jit_half_written-cache").exists()


def test_a_cache_that_jax_was_told_of_stays(monkeypatch, tmp_path):
    told = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert zoo.enable_compilation_cache() == Path(told)
    assert jax.config.jax_compilation_cache_dir == told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("off", ["off", "OFF", "0M"])
def test_off(untold, monkeypatch, off):
    monkeypatch.setenv("ZOO_COMPILE_CACHE", off)
    assert zoo.enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert not untold.exists()


def test_a_folder_that_cannot_be_written_is_no_cache(untold):
    untold.write_text("a file")
    assert zoo.enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_another_size_is_refused(untold, monkeypatch):
    monkeypatch.setenv("ZOO_COMPILE_CACHE", "large")
    with pytest.raises(zoo.ZooError, match="got 'large', expected off, or a size such as 500M"):
        zoo.enable_compilation_cache()
