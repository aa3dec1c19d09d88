"""The sum over a program: operations times turns, by part, against sums made by hand."""

# ruff: noqa: E501 – lines of programs are long

import json

import jax
import jax.numpy as jnp
import pytest

from masktrack_jax.plan.costs import READ_BACK
from masktrack_jax.plan.counts import Site, count
from masktrack_jax.plan.estimate import estimate
from masktrack_jax.plan.hlo import parse
from masktrack_jax.plan.plan import Wanted, _needed, plan_work
from masktrack_jax.plan.programs import Work
from masktrack_jax.plan.report import as_json, lines
from masktrack_jax.plan.targets import KINDS, find_target


def op(name: str, scope: str, cycles: int) -> str:
    config = f'backend_config={{"estimated_cycles":"{cycles}"}}'
    return f'  %{name} = f32[8]{{0}} fusion(%x), kind=kLoop, calls=%f, metadata={{op_name="{scope}"}}, {config}\n'


PROGRAM = (
    "%body (p: f32[8]) -> f32[8] {\n"
    + op("b", "jit(f)/pool/while/body/add", 1500)
    + "}\n%cond (p: f32[8]) -> pred[] {\n"
    + op("c", "jit(f)/pool/while/cond/lt", 150)
    + "}\n%fixed (p: f32[8]) -> f32[8] {\n"
    + op("g", "jit(f)/rpn_head/while/body/add", 15)
    + "}\n%left (p: f32[8]) -> f32[8] {\n"
    + op("l", "jit(f)/fpn/cond/branch_0_fun/add", 6000)
    + "}\n%right (p: f32[8]) -> f32[8] {\n"
    + op("r", "jit(f)/fpn/cond/branch_1_fun/add", 600)
    + "}\nENTRY %main (x: f32[8]) -> f32[8] {\n"
    + "  %x = f32[8]{0} parameter(0)\n"
    + op("s", "jit(f)/backbone/add", 15000)
    + '  %w = f32[8]{0} while(%s), condition=%cond, body=%body, metadata={op_name="jit(f)/pool/while"}\n'
    + '  %v = f32[8]{0} while(%w), condition=%nothing, body=%fixed, metadata={op_name="jit(f)/rpn_head/while"}, '
    + 'backend_config={"known_trip_count":{"n":"7"}}\n'
    + "  %k = f32[8]{0} conditional(%v, %x, %x), branch_computations={%left, %right}, "
    + 'metadata={op_name="jit(f)/fpn/cond"}\n'
    + '  %o = f32[8]{0} custom-call(%k), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/pool/x"}\n'
    + "}\n%nothing (p: f32[8]) -> pred[] {\n}\n"
)
SITES = {
    Site(("pool",), 0, "while"): 20,
    Site(("fpn",), 0, "entered"): 4,
    Site(("fpn",), 0, "branch 0"): 1,
    Site(("fpn",), 0, "branch 1"): 3,
}
MS = 1e3 / 1.5e9  # of a cycle


def test_operations_times_turns() -> None:
    found = estimate(parse(PROGRAM), SITES, find_target("v5e:2x2"), 1)
    milliseconds = {part: seconds * 1e3 for part, seconds in found.parts.items()}
    assert milliseconds == pytest.approx(
        {
            "backbone": 15000 * MS,
            "FPN": (6000 * 0.25 + 600 * 0.75) * MS,
            "RPN": 7 * 15 * MS,
            "RoIAlign": 20 * 1650 * MS,
        }
    )
    assert found.straight_seconds == pytest.approx((15000 + 6000 * 0.25 + 600 * 0.75) * MS / 1e3)
    assert found.loop_turns == 20 and [loop.turns for loop in found.loops] == [20, 7]
    assert found.kernels == 1 + 2 * 20 + 7 + (0.25 + 0.75) + 1
    assert found.unknown == {"tpu_custom_call (RoIAlign)": 1}
    assert found.items[0].part == "RoIAlign" and found.items[0].runs == 20


def test_a_loop_of_a_fixed_length_that_the_compiler_does_not_state() -> None:
    text = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"7"}}', "")
    assert text != PROGRAM
    found = estimate(parse(text), SITES | {Site(("rpn_head",), 0, "scan"): 7}, find_target("v5e:2x2"), 1)
    assert [(loop.turns, loop.known, loop.measured) for loop in found.loops] == [
        (20, False, True),
        (7, True, True),
    ]


def test_turns_that_nobody_counted_are_said() -> None:
    found = estimate(parse(PROGRAM), {}, find_target("v5e:2x2"), 1)
    assert [(loop.turns, loop.measured) for loop in found.loops] == [(1, False), (7, True)]


def test_a_gpu_reads_the_ends_of_loops_and_the_conditions_of_branches_back() -> None:
    found = estimate(parse(PROGRAM), SITES, find_target("h100"), 1)
    assert found.parts["loop control"] == pytest.approx((20 + 1) * READ_BACK)


def test_plan_of_a_small_program_as_text_and_json() -> None:
    def work(name: str) -> Work:
        x = jnp.ones((64, 64))
        return Work(name, 4, lambda: jax.jit(jnp.matmul).lower(x, x), lambda: count(jnp.matmul, x, x))

    target = KINDS["cpu"]
    common = {"fits", "hbm_bytes", "seconds", "straight_seconds", "loop_turns", "kernels", "parts"}
    for name, rate in (("detect", "frames_per_second"), ("train", "pairs_per_second")):
        found = plan_work(work(name), (64, 96), "float32", target, 1, (100, "100 steps"), Wanted((name,)))
        numbers = json.loads(json.dumps(as_json(found)))
        assert common | {rate} <= numbers.keys()
        assert numbers["fits"] and numbers["flops"] == 2 * 64**3
        assert numbers["hbm_bytes"] >= 3 * 64 * 64 * 4 and numbers[rate] == pytest.approx(
            4 / numbers["seconds"]
        )
        text = "\n".join(lines(found))
        assert "fits" in text and ("100 steps" in text) == (name == "train")
        too_large = found._replace(memory={"at least": 2.0**60}, estimate=None)
        assert "does NOT fit" in "\n".join(lines(too_large)) and not as_json(too_large)["fits"]


def test_memory_that_a_failed_compilation_names() -> None:
    message = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (37.29G) exceeds available HBM (15.75G)."
    assert _needed(message) == pytest.approx(37.29 * 2**30)
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 38.12G of 15.75G hbm. Exceeded hbm capacity by 22.37G."
    assert _needed(message) == pytest.approx(38.12 * 2**30)
    assert _needed("INTERNAL: Used 3.0G of") == _needed("RESOURCE_EXHAUSTED: threads") == 0
