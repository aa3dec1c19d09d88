"""Text of compiled programs is read as XLA writes it; shapes and numbers were counted by hand."""

# ruff: noqa: E501 – lines of programs are long

from masktrack_jax.plan.hlo import parse, shapes

# Lines as libtpu and XLA's GPU compiler print them, shortened.
TEXT = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(bf16[8,16]{1,0:T(8,128)(2,1)})->f32[8]{0}}

%fused_computation (param_0.1: bf16[8,16]) -> f32[8] {
  %param_0.1 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %reduce.1 = f32[8]{0:T(128)S(1)} reduce(%param_0.1, %constant.1), dimensions={1}, to_apply=%add
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  ROOT %tuple.2 = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%arg, %arg)
}

ENTRY %main.7 (x.1: bf16[8,16]) -> f32[8] {
  %x.1 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="x"}
  %fusion.3 = f32[8]{0:T(128)} fusion(%x.1), kind=kLoop, calls=%fused_computation, metadata={op_name="jit(f)/fpn/reduce_sum" stack_frame_id=3}, backend_config={"flag_configs":[],"estimated_cycles":"1234"}
  %while.5 = (s32[]{:T(128)}, f32[8]{0:T(128)}) while((s32[]{:T(128)}, f32[8]{0:T(128)}) %tuple.1), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"13"}}
  %conditional.1 = f32[8]{0} conditional(%p.1, %a.1, %b.1), branch_computations={%left, %right.2}
  ROOT %custom-call.1 = (f32[8]{0}, s8[1024]{0}) custom-call(%fusion.3, %x.1), custom_call_target="__cublas$gemm"
}
"""


def test_program_is_read() -> None:
    program = parse(TEXT)
    assert program.entry == "main.7" and list(program.computations) == ["fused_computation", "body", "main.7"]
    operations = {op.name: op for op in program.computations["main.7"]}
    assert [op.opcode for op in operations.values()] == [
        "parameter", "fusion", "while", "conditional", "custom-call"
    ]  # fmt: skip
    fusion = operations["fusion.3"]
    assert fusion.cycles == 1234 and fusion.scope == "jit(f)/fpn/reduce_sum" and fusion.operands == ["x.1"]
    assert fusion.called == {"calls": ["fused_computation"]}
    assert fusion.shapes == shapes("f32[8]") and fusion.shapes[0].bytes == 32
    loop = operations["while.5"]
    assert loop.called == {"condition": ["cond"], "body": ["body"]} and loop.operands == ["tuple.1"]
    assert loop.backend["known_trip_count"] == {"n": "13"} and loop.cycles is None
    assert operations["conditional.1"].called == {"branch_computations": ["left", "right.2"]}
    assert operations["custom-call.1"].target == "__cublas$gemm"
    assert [shape.bytes for shape in operations["custom-call.1"].shapes] == [32, 1024]


def test_bytes_of_types() -> None:
    text = "(bf16[3,5]{1,0:T(8,128)(2,1)}, pred[7], s4[6], u8[2,2], f32[], f8e4m3fn[4], c64[2])"
    assert [shape.bytes for shape in shapes(text)] == [30, 7, 3, 4, 4, 4, 16]
