"""The folder of the compilation cache, against paths written by hand; a library keeps its user's cache."""

from pathlib import Path

import jax
import pytest

from masktrack_jax.runtime import cache
from masktrack_jax.runtime.cache import check_cache, keep_programs, keep_programs_of_library

CACHE = "JAX_COMPILATION_CACHE_DIR"


@pytest.mark.parametrize(
    "environment, folder",
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/masktrack_jax"),
        ({"XDG_CACHE_HOME": "/x", "MASKTRACK_CACHE": ""}, "/x/masktrack_jax"),
        ({}, str(Path.home() / ".cache" / "masktrack_jax")),
        ({"XDG_CACHE_HOME": "/x", "MASKTRACK_CACHE": "/y"}, "/y"),
    ],
)
def test_programs_are_kept_by_kind_of_machine(environment, folder):
    keep_programs(environment)
    assert str(Path(environment[CACHE]).parent) == folder
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.2"


@pytest.mark.parametrize("environment", [{"MASKTRACK_CACHE": "off"}, {CACHE: "/z", "MASKTRACK_CACHE": "/y"}])
def test_off_and_jaxs_own_setting_hold(environment):
    before = dict(environment)
    keep_programs(environment)
    assert environment == before


def test_a_cache_that_cannot_be_written_is_one_line_and_no_obstacle(tmp_path, capsys):
    (tmp_path / "file").touch()
    environment = {CACHE: str(tmp_path / "file" / "jax")}
    check_cache(environment)
    line = capsys.readouterr().err
    assert (
        line.startswith(f"{tmp_path}/file/jax: cannot be written to (Not a directory)")
        and CACHE not in environment
    )
    assert line.count("\n") == 1
    environment = {CACHE: str(tmp_path / "new")}
    check_cache(environment)
    assert (tmp_path / "new").is_dir() and CACHE in environment and not capsys.readouterr().err
    environment = {CACHE: "gs://bucket/jax"}
    check_cache(environment)
    assert CACHE in environment


@pytest.fixture
def config(monkeypatch):
    """JAX's config without a cache; the test may change it."""
    before = {name: getattr(jax.config, name) for name in map(str.lower, (cache.FOLDER, cache.SHORTEST))}
    monkeypatch.delenv(cache.FOLDER, raising=False)
    monkeypatch.delenv(cache.SHORTEST, raising=False)
    jax.config.update(cache.FOLDER.lower(), None)
    jax.config.update(cache.SHORTEST.lower(), cache.USUAL)
    keep_programs_of_library.cache_clear()
    yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_library_keeps_programs_where_the_scripts_do(config, monkeypatch, tmp_path):
    monkeypatch.setenv("MASKTRACK_CACHE", str(tmp_path))
    keep_programs_of_library()
    environment = {"MASKTRACK_CACHE": str(tmp_path)}
    keep_programs(environment)
    assert config.jax_compilation_cache_dir == environment[CACHE]
    assert config.jax_persistent_cache_min_compile_time_secs == 0.2
    assert Path(config.jax_compilation_cache_dir).is_dir()


@pytest.mark.parametrize("choice", ["of the config", "of the environment", "off"])
def test_a_library_changes_no_choice_of_its_user(config, monkeypatch, tmp_path, choice):
    monkeypatch.setenv("MASKTRACK_CACHE", "off" if choice == "off" else str(tmp_path))
    if choice == "of the config":
        config.update("jax_compilation_cache_dir", "/mine")
    if choice == "of the environment":
        monkeypatch.setenv(CACHE, "")
    before = config.jax_compilation_cache_dir, config.jax_persistent_cache_min_compile_time_secs
    keep_programs_of_library()
    after = config.jax_compilation_cache_dir, config.jax_persistent_cache_min_compile_time_secs
    assert after == before and not list(tmp_path.iterdir())
