"""Turns of loops, branches and products of small functions with known numbers; their places in XLA's text."""

# ruff: noqa: E501 – lines of programs are long

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import pallas as pl

from masktrack_jax.plan.counts import Site, count, scopes
from masktrack_jax.plan.estimate import estimate, part_of, site_of
from masktrack_jax.plan.hlo import parse
from masktrack_jax.plan.kernels import KERNELS, Kernel
from masktrack_jax.plan.targets import KINDS


def halve(x):
    """⌈log2 x⌉ turns, each of as many inner turns as x has left, and each of one product of 2 · 3 · 4 · 5."""

    def turn(x):
        with jax.named_scope("inner"):
            total = lax.fori_loop(0, x, lambda i, total: total + i, 0)
        y = jnp.ones((3, 4)) @ jnp.ones((4, 5))
        return jnp.where(total + y[0, 0] < -1, x, x // 2)

    with jax.named_scope("outer"):
        return lax.while_loop(lambda x: x > 1, turn, x)


def test_turns_of_loops_in_loops() -> None:
    found = count(halve, jnp.int32(16))
    assert found[Site(("outer",), 0, "while")] == 4
    assert found[Site(("outer", "inner"), 1, "while")] == 16 + 8 + 4 + 2
    assert found[Site(("outer",), 1, "flops")] == 4 * 2 * 3 * 4 * 5


def test_turns_follow_the_longest_of_a_batch() -> None:
    found = count(jax.vmap(halve), jnp.array([2, 32, 4]))
    assert found[Site(("vmap(outer)",), 0, "while")] == 5


def test_branches_and_fixed_loops() -> None:
    def part(x):
        with jax.named_scope("choice"):
            return lax.cond(x > 2, jnp.sin, jnp.cos, x)

    found = count(lambda x: lax.map(part, x), jnp.arange(7.0))
    assert found[Site((), 0, "scan")] == 7
    kinds = {site.kind: number for site, number in found.items() if site.scopes == ("choice",)}
    assert kinds == {"entered": 7, "branch 0": 3, "branch 1": 4}


def test_loops_of_gradients_and_within_a_pmap() -> None:
    @jax.custom_vjp
    def f(x):
        return x * lax.fori_loop(0, x.astype(int), lambda i, n: n + 1, 0)

    f.defvjp(
        lambda x: (f(x), x), lambda x, g: (g * lax.fori_loop(0, 2 * x.astype(int), lambda i, n: n + 1, 0),)
    )
    found = count(jax.grad(lambda x: lax.psum(f(x), "data")), jnp.float32(5), axis="data")
    turns = sorted(number for site, number in found.items() if site.kind == "while")
    assert turns == [5, 10]


@pytest.mark.parametrize("batched", [False, True])
def test_loops_of_the_compiled_program_are_found_again(batched: bool) -> None:
    function, x = (jax.vmap(halve), jnp.array([2, 16])) if batched else (halve, jnp.int32(16))
    sites = count(function, x)
    program = parse(jax.jit(function).lower(x).compile().as_text())
    loops = [op for _, op in program.all() if op.opcode == "while"]
    assert len(loops) == 2 and all(site_of(op, "while") in sites for op in loops)
    found = estimate(program, sites, KINDS["cpu"], 1)
    assert found.loop_turns == 4 + 16 + 8 + 4 + 2
    assert all(loop.measured and not loop.known for loop in found.loops)


def test_scopes_of_a_path() -> None:
    path = "jit(step)/transpose(jvp(MaskTrackRCNN.pool))/while/body/closed_call/jit(clip)/while"
    assert scopes(path) == ("transpose(jvp(MaskTrackRCNN.pool))",)
    assert scopes("outer/cond/branch_1_fun/a/cond") == ("outer", "a")


def test_parts() -> None:
    paths = {
        "jit(run)/MaskTrackRCNN.detect/MaskTrackRCNN.features/backbone/stem/conv": "backbone",
        "jit(run)/MaskTrackRCNN.detect/MaskTrackRCNN.features/sub": "backbone",
        "jit(f)/jvp(MaskTrackRCNN.features)/fpn/lateral2/conv/conv/dot_general": "FPN",
        "jit(f)/transpose(jvp(rpn_head))/deltas/conv/dot_general": "RPN",
        "jit(f)/jvp(MaskTrackRCNN.propose)/vmap()/while/body/and": "proposals",
        "jit(run)/MaskTrackRCNN.detect/MaskTrackRCNN.masks_and_embeddings/MaskTrackRCNN.pool/add": "RoIAlign",
        "jit(run)/MaskTrackRCNN.detect/MaskTrackRCNN.masks_and_embeddings/MaskHead/conv": "heads",
        "jit(run)/MaskTrackRCNN.detect/vmap()/while": "detections",
        "jit(f)/jvp(vmap())/and": "losses",
        "jit(f)/mul": "optimizer",
        "state.params": "other",
        "": "other",
    }
    assert {path: part_of(path) for path in paths} == paths
    assert part_of("jit(f)/add", "all-reduce") == "all-reduce"


def test_cycles_of_a_kernel_come_from_its_operands(monkeypatch) -> None:
    def kernel(turns, x, out):
        out[...] = x[...] * 2

    def function(turns, x):
        with jax.named_scope("pool"):
            call = pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape[1:], x.dtype), name="walk")
            return lax.map(lambda row: call(turns + 1, row), x)

    arguments = jnp.array([2, 3]), jnp.ones((4, 8, 128))
    kernels = Site(("pool", "walk"), 1, "kernel")
    assert count(function, *arguments) == {Site(("pool",), 0, "scan"): 4, kernels: 4}
    monkeypatch.setitem(KERNELS, "walk", Kernel((0,), lambda shapes, turns: 1500.0 * turns.sum()))
    found = count(function, *arguments)
    assert found[kernels._replace(kind="cycles")] == 4 * 7 * 1500
    scope = "jit(f)/pool/while/body/closed_call/walk/pallas_call"
    call = f'%k = f32[8]{{0}} custom-call(), custom_call_target="tpu_custom_call", metadata={{op_name="{scope}"}}'
    loop = '%w = f32[8]{0} while(%k), condition=%c, body=%b, metadata={op_name="jit(f)/pool/while"}'
    program = parse(
        f"%c (p: f32[8]) -> pred[] {{\n}}\n%b (p: f32[8]) -> f32[8] {{\n  {call}\n}}\nENTRY %m () -> f32[8] {{\n  {loop}\n}}\n"
    )
    estimated = estimate(program, found, KINDS["v5e"], 1)
    assert estimated.parts == {"RoIAlign": pytest.approx(4 * 7 * 1500 / 1.5e9)} and not estimated.unknown
