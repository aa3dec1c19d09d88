"""Targets by name, one-line errors, and the environment of their compilers."""

import importlib.util

import pytest

from masktrack_jax.plan import targets
from masktrack_jax.plan.targets import check_compiler, find_target, prepare
from masktrack_jax.runtime.errors import UserError


def test_names_of_targets() -> None:
    assert [find_target(text).title for text in ("v5e:2x4", "v5p", "h100", "h100:8", "cpu")] == [
        "v5e:2x4", "v5p:2x2x1", "h100", "h100:8", "cpu"
    ]  # fmt: skip
    assert [find_target(text).chips for text in ("v5e:2x4", "v5p", "h100", "h100:8")] == [8, 4, 1, 8]


@pytest.mark.parametrize("text", ["v9", "", "v5e:two", "v5e:0x2", "h100:2x2", "h100:", "v5e:2x"])
def test_other_names_are_refused(text: str) -> None:
    if text == "h100:":
        assert find_target(text).chips == 1
        return
    with pytest.raises(UserError, match=r"--target=") as error:
        find_target(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "extra"), [("v5e:2x2", "tpu"), ("h100", "cuda")])
def test_a_missing_compiler_names_its_extra(monkeypatch, text: str, extra: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf'pip install "masktrack-jax\[{extra}\]"') as error:
        check_compiler(find_target(text))
    assert "\n" not in str(error.value)
    check_compiler(find_target("cpu"))


def test_environment_of_the_compilers() -> None:
    environment = {"JAX_PLATFORMS": "tpu", "XLA_FLAGS": "--a=1"}
    prepare(find_target("v5p:2x2x1"), environment)
    assert environment["JAX_PLATFORMS"] == "cpu" and environment["TPU_ACCELERATOR_TYPE"] == "v5p-8"
    assert environment["XLA_FLAGS"] == "--a=1"
    prepare(find_target("h100"), environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1" and environment["XLA_FLAGS"].startswith(
        "--a=1 --xla_gpu"
    )


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu: the extra tpu")
def test_compiles_for_a_tpu(monkeypatch) -> None:
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from masktrack_jax.plan.estimate import estimate
    from masktrack_jax.plan.hlo import parse

    target, environment = find_target("v5e:2x2"), {}
    prepare(target, environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    devices = targets.devices(target)
    assert len(devices) == target.chips
    x = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16, sharding=SingleDeviceSharding(devices[0]))
    text = jax.jit(jnp.matmul).lower(x, x).compile().as_text()
    found = estimate(parse(text), {}, target, 1)
    assert found.seconds == pytest.approx(2 * 4096**3 / target.bfloat16, rel=0.5)
