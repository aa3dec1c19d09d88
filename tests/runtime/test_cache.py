"""The folder of the compilation cache, against paths written by hand."""

from pathlib import Path

import pytest

from masktrack_jax.runtime.cache import check_cache, keep_programs

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
