"""Compiling is shown by a line before and one after it. A library keeps programs as its user wants."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from masktrack_jax.runtime.cache import FOLDER, SHORTEST, keep_programs
from masktrack_jax.runtime.programs import USUAL, Announced, compilation, keep_programs_of_library


def cubes(count):
    """A new function each time: JAX compiles it again, or finds its program on disk."""
    return Announced(jax.jit(lambda x: x**3 + count), lambda x: f"cubes of {x.size}")


@pytest.fixture
def cache(tmp_path):
    """An empty cache on disk."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_compilation_cache_dir
    for folder in (str(tmp_path), before):
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        if folder != before:
            yield


def test_a_program_is_compiled_once_and_then_found_on_disk(cache, capsys):
    said = []
    for function in (first := cubes(5), first, cubes(5)):
        for size in (3, 4):
            assert function(jnp.arange(size))[2] == 13
        said.append(capsys.readouterr().err.splitlines())
    for lines, how in ((said[0], "compiled"), (said[2], "from the cache")):
        assert lines[0::2] == ["compiling cubes of 3 …", "compiling cubes of 4 …"]
        for line, size in zip(lines[1::2], (3, 4)):
            assert re.fullmatch(rf"cubes of {size}: {how} in [\d.]+ s", line), line
    assert said[1] == []


def test_only_the_first_process_says_so_and_an_error_ends_it(monkeypatch, capsys):
    with pytest.raises(ZeroDivisionError), compilation("nothing"):
        raise ZeroDivisionError
    assert capsys.readouterr().err == "compiling nothing …\n"
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with compilation("nothing"):
        pass
    assert capsys.readouterr().err == ""


def test_a_program_that_jax_has_already_is_ready(capsys):
    with compilation("nothing"):
        pass
    assert capsys.readouterr().err.splitlines()[1] == "nothing: ready in 0.0 s"


@pytest.fixture
def config(monkeypatch):
    """JAX's config without a cache; the test may change it."""
    before = {name: getattr(jax.config, name) for name in map(str.lower, (FOLDER, SHORTEST))}
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.delenv(SHORTEST, raising=False)
    jax.config.update(FOLDER.lower(), None)
    jax.config.update(SHORTEST.lower(), USUAL)
    keep_programs_of_library.cache_clear()
    yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_library_keeps_programs_where_the_scripts_do(config, monkeypatch, tmp_path):
    monkeypatch.setenv("MASKTRACK_CACHE", str(tmp_path))
    keep_programs_of_library()
    environment = {"MASKTRACK_CACHE": str(tmp_path)}
    keep_programs(environment)
    assert config.jax_compilation_cache_dir == environment[FOLDER]
    assert config.jax_persistent_cache_min_compile_time_secs == 0.2
    assert Path(config.jax_compilation_cache_dir).is_dir()


@pytest.mark.parametrize("choice", ["of the config", "of the environment", "off"])
def test_a_library_changes_no_choice_of_its_user(config, monkeypatch, tmp_path, choice):
    monkeypatch.setenv("MASKTRACK_CACHE", "off" if choice == "off" else str(tmp_path))
    if choice == "of the config":
        config.update("jax_compilation_cache_dir", "/mine")
    if choice == "of the environment":
        monkeypatch.setenv(FOLDER, "")
    before = config.jax_compilation_cache_dir, config.jax_persistent_cache_min_compile_time_secs
    keep_programs_of_library()
    after = config.jax_compilation_cache_dir, config.jax_persistent_cache_min_compile_time_secs
    assert after == before and not list(tmp_path.iterdir())
