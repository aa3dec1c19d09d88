"""The roofline model: times of single kernels, against sums made by hand."""

# ruff: noqa: E501 – lines of programs are long

import dataclasses

import pytest

from masktrack_jax.plan.costs import BANDWIDTH_SHARE, LAUNCH, PRODUCT_SHARE, Costs
from masktrack_jax.plan.hlo import Program, parse
from masktrack_jax.plan.targets import KINDS

GPU, TPU = KINDS["h100"], KINDS["v5e"]
HEAD = """ENTRY %main (a: bf16[2,8,8,64]) -> bf16[2,8,8,128] {
  %x = bf16[2,8,8,64]{3,2,1,0} parameter(0)
  %w = bf16[3,3,64,128]{3,2,1,0} parameter(1)
  %dy = bf16[2,8,8,128]{3,2,1,0} parameter(2)
  %big = f32[4096,4096]{1,0} parameter(3)
  %row = f32[1,4096]{1,0} parameter(4)
"""
CONV = 2 * (2 * 8 * 8 * 128) * (3 * 3 * 64)


def program(*lines: str, before: str = "") -> Program:
    return parse(before + HEAD + "".join(f"  {line}\n" for line in lines) + "}\n")


def work(line: str) -> float:
    costs = Costs(program(line), GPU, 1)
    return costs.work(costs.program.computations["main"][-1], "main")


@pytest.mark.parametrize(
    ("result", "operands", "target"),
    [
        ("bf16[2,8,8,128]", "%x, %w", "__cudnn$convForward"),
        ("bf16[2,8,8,64]", "%dy, %w", "__cudnn$convBackwardInput"),
        ("bf16[3,3,64,128]", "%x, %dy", "__cudnn$convBackwardFilter"),
    ],
)
def test_work_of_convolutions(result: str, operands: str, target: str) -> None:
    labels = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
    line = f'%c = ({result}{{3,2,1,0}}, u8[99]{{0}}) custom-call({operands}), {labels}, custom_call_target="{target}"'
    assert work(line) == CONV


def test_work_of_products() -> None:
    assert work(
        "%d = f32[4096,1]{1,0} dot(%big, %row), lhs_contracting_dims={1}, rhs_contracting_dims={1}"
    ) == (2 * 4096 * 4096)
    config = 'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}'
    line = f'%d = (f32[4096,1]{{1,0}}, s8[8]{{0}}) custom-call(%big, %row), custom_call_target="__cublas$gemm", {config}'
    assert work(line) == 2 * 4096 * 4096
    assert work("%e = f32[4096,4096]{1,0} add(%big, %big)") == 0


def test_time_of_a_gpu_kernel_is_products_bytes_or_launch() -> None:
    def seconds(line: str, before: str = "") -> float:
        costs = Costs(program(line, before=before), GPU, 1)
        found = costs.of(costs.program.computations["main"][-1], "main")
        assert found.seconds is not None
        return found.seconds

    by_bytes = 3 * 4096 * 4096 * 4 / (3350e9 * BANDWIDTH_SHARE)
    assert seconds("%e = f32[4096,4096]{1,0} add(%big, %big)") == pytest.approx(by_bytes)
    assert seconds("%n = f32[1,4096]{1,0} negate(%row)") == LAUNCH
    line = "%d = f32[4096,4096]{1,0} dot(%big, %big), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    assert seconds(line) == pytest.approx(2 * 4096**3 / (495e12 * PRODUCT_SHARE))
    # Of a table that a fusion only gathers from, the gathered rows are read.
    fused = """%f (p: f32[4096,4096], q: s32[8192]) -> f32[8192,4096] {
  %p = f32[4096,4096]{1,0} parameter(0)
  %q = s32[8192]{0} parameter(1)
  ROOT %g = f32[8192,4096]{1,0} gather(%p, %q), offset_dims={1}
}
"""
    few = fused.replace("8192", "2048")
    many, some = (
        seconds(f"%k = f32[{rows},4096]{{1,0}} fusion(%big, %q), kind=kLoop, calls=%f", before)
        for rows, before in ((8192, fused), (2048, few))
    )
    speed = 3350e9 * BANDWIDTH_SHARE
    assert some == pytest.approx((2 * 2048 * 4096 * 4 + 2048 * 4) / speed)
    assert many == pytest.approx(((8192 + 4096) * 4096 * 4 + 8192 * 4) / speed)  # never more than the table


def test_a_tpu_kernel_takes_what_its_compiler_says() -> None:
    lines = (
        '%c = f32[8]{0} fusion(%x), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"3000"}',
        '%p = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call"',
        '%q = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":'
        '{"cost_estimate":{"flops":"197000000","bytes_accessed":"8190000"}}}',
        "%t = (f32[8]{0}) tuple(%q)",
    )
    costs = Costs(program(*lines), TPU, 1)
    times = [costs.of(op, "main") for op in costs.program.computations["main"][-4:]]
    assert [time.seconds for time in times] == [pytest.approx(2e-6), None, pytest.approx(1e-5), 0.0]
    assert times[-1].kernels == 0


def test_reduction_over_devices() -> None:
    line = "%r = f32[4096,4096]{1,0} all-reduce(%big), to_apply=%add"
    target = dataclasses.replace(TPU, link=1e9)
    costs = Costs(program(line), target, 4)
    found = costs.of(costs.program.computations["main"][-1], "main")
    assert found.seconds == pytest.approx(2 * 3 / 4 * 4096 * 4096 * 4 / 1e9)
