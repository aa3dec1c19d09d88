"""The folder of the compilation cache, against paths written by hand."""

from pathlib import Path

import pytest

from masktrack_jax.runtime.cli import keep_programs

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
