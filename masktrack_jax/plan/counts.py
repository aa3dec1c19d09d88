"""Count the turns of a program's data-dependent loops, and its products, by running its control flow here.

A traced program (jaxpr) is evaluated again with a vector of counters beside its values. Each body of a loop
and each branch of a conditional adds to its counter when it runs. Work that does not decide how often
something runs is left out, see `needs`.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float

from masktrack_jax.plan.kernels import cycles, kernel_of
from masktrack_jax.plan.needs import KERNEL, Mask, Needs, called, chosen, opened, spread

SLOTS = 4096  # counters
# Names that JAX puts into the path of an operation for control flow and calls, not for a scope.
NOT_A_SCOPE = re.compile(
    r"(jit|pjit|pmap|shard_map|closed_call|core_call|checkpoint|rematted_computation|remat2?|while|body|cond|"
    r"custom_jvp_call|custom_vjp_call\w*|branch_\d+_fun|scan|)(\(.*\))?$"
)


class Site(NamedTuple):
    """A place in the program: its scopes, the loops around it, and what is there.

    `kind` is "while" (a data-dependent loop), "scan" (one of a fixed length), "branch N" of a conditional,
    "entered" (times that a conditional was reached), "flops", "kernel" (a hand-written one) or its "cycles".
    """

    scopes: tuple[str, ...]
    depth: int
    kind: str


def scopes(path: str) -> tuple[str, ...]:
    """The scopes of an operation's path, without the names that control flow adds."""
    return tuple(token for token in _split(path) if not NOT_A_SCOPE.match(token))


def _split(path: str) -> list[str]:
    """Split a path at slashes outside brackets."""
    tokens, depth, start = [], 0, 0
    for place, letter in enumerate(path):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "/" and not depth:
            tokens.append(path[start:place])
            start = place + 1
    return [*tokens, path[start:]]


def count(function: Callable[..., Any], *arguments: Any, axis: str | None = None) -> dict[Site, float]:
    """How often each site of `function(*arguments)` runs; with `axis`, within a pmap over it."""
    counter = _Counter()
    # A new function: JAX keeps what it has traced of a function, and it may be traced otherwise now.
    trace = jax.make_jaxpr(lambda *arguments: function(*arguments), axis_env=[(axis, 1)] if axis else None)
    closed = trace(*arguments)
    inputs = closed.consts, jax.tree.leaves(arguments)  # XLA would spend time on what it knows of constants

    def counts(constants: list[Any], arguments: list[Any]) -> Float[Array, " slots"]:
        nothing = _Place((), 0, (False,) * len(closed.jaxpr.outvars))
        body = core.ClosedJaxpr(closed.jaxpr, constants)
        return counter.run(body, arguments, counter.zeros(), nothing)[1]

    if axis:
        spread = jax.tree.map(lambda x: jnp.asarray(x)[None], inputs)
        found = jax.pmap(counts, axis, devices=jax.devices("cpu")[:1])(*spread)[0]
    else:
        found = jax.jit(counts)(*inputs)
    values = jax.device_get(found)
    return {site: float(values[slot]) for site, slot in counter.slots.items()}


class _Place(NamedTuple):
    """Where an equation is, and which of its results are needed."""

    scopes: tuple[str, ...]
    depth: int
    needed: Mask

    def site(self, kind: str) -> Site:
        return Site(self.scopes, self.depth, kind)

    def inside(self, needed: Mask) -> "_Place":
        """The place of the body of a loop."""
        return _Place(self.scopes, self.depth + 1, needed)


class _Counter:
    """Evaluates a jaxpr with counters."""

    def __init__(self) -> None:
        self.slots: dict[Site, int] = {}
        self.needs = Needs()

    def zeros(self) -> Float[Array, " slots"]:
        return jnp.zeros(SLOTS, jnp.float32)

    def add(self, counts: Array, site: Site, amount: float | Array = 1.0) -> Array:
        return counts.at[self.slots.setdefault(site, len(self.slots))].add(amount)

    def run(self, body: Any, inputs: Sequence[Any], counts: Array, place: _Place) -> tuple[list[Any], Array]:
        """The needed results of a jaxpr, None for the others, and the counters after it."""
        jaxpr, constants = opened(body)
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants)) | dict(zip(jaxpr.invars, inputs))
        flops: dict[tuple[str, ...], float] = {}

        def read(v: Any) -> Any:
            return v.val if isinstance(v, core.Literal) else values[v]

        for eqn, needed in zip(jaxpr.eqns, self.needs.of(jaxpr, place.needed).equations):
            here = _Place(place.scopes + scopes(str(eqn.source_info.name_stack)), place.depth, needed)
            if work := _flops(eqn):
                flops[here.scopes] = flops.get(here.scopes, 0) + work
            arguments = [read(v) for v in eqn.invars]
            if rule := RULES.get(eqn.primitive.name):
                results, counts = rule(self, eqn, arguments, counts, here)
            elif inner := called(eqn):
                results, counts = self.run(inner, arguments, counts, here)
            elif any(needed):
                results = eqn.primitive.bind(*arguments, **eqn.params)
                results = results if eqn.primitive.multiple_results else [results]
            else:
                results = [None] * len(eqn.outvars)
            values.update(zip(eqn.outvars, results))
        for where, work in flops.items():
            counts = self.add(counts, Site(where, place.depth, "flops"), work)
        return [read(v) if use else None for v, use in zip(jaxpr.outvars, place.needed)], counts


Rule = Callable[[_Counter, Any, list[Any], Array, _Place], tuple[list[Any], Array]]


def _while(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: _Place
) -> tuple[list[Any], Array]:
    n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    of_condition, of_body, start = inputs[:n], inputs[n : n + m], inputs[n + m :]
    carried = counter.needs.of_while(eqn, place.needed).carry

    def goes_on(carry: tuple[Array, list[Any]]) -> Array:
        arguments = [*of_condition, *spread(carry[1], carried)]
        (answer,), _ = counter.run(eqn.params["cond_jaxpr"], arguments, carry[0], place.inside((True,)))
        return answer if answer.ndim == 0 else jnp.any(answer)

    def turn(carry: tuple[Array, list[Any]]) -> tuple[Array, list[Any]]:
        counts = counter.add(carry[0], place.site("while"))
        arguments = [*of_body, *spread(carry[1], carried)]
        results, counts = counter.run(eqn.params["body_jaxpr"], arguments, counts, place.inside(carried))
        return counts, chosen(results, carried)

    counts, results = lax.while_loop(goes_on, turn, (counts, chosen(start, carried)))
    return spread(results, carried), counts


def _scan(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: _Place
) -> tuple[list[Any], Array]:
    n, m = eqn.params["num_consts"], eqn.params["num_carry"]
    constants, start, rows = inputs[:n], inputs[n : n + m], inputs[n + m :]
    loop, needed = counter.needs.of_scan(eqn, place.needed), place.needed[m:]

    def turn(carry: tuple[Array, list[Any]], rows: list[Any]) -> tuple[tuple[Array, list[Any]], list[Any]]:
        counts = counter.add(carry[0], place.site("scan"))
        arguments = [*constants, *spread(carry[1], loop.carry), *spread(rows, loop.rows)]
        results, counts = counter.run(
            eqn.params["jaxpr"], arguments, counts, place.inside(loop.carry + needed)
        )
        return (counts, chosen(results[:m], loop.carry)), chosen(results[m:], needed)

    start, rows = chosen(start, loop.carry), chosen(rows, loop.rows)
    options = {"length": eqn.params["length"], "reverse": eqn.params["reverse"]}
    (counts, carry), stacked = lax.scan(turn, (counts, start), rows, **options)
    return spread(carry, loop.carry) + spread(stacked, needed), counts


def _cond(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: _Place
) -> tuple[list[Any], Array]:
    counts = counter.add(counts, place.site("entered"))
    index, *arguments = inputs
    used = tuple(x is not None for x in arguments)

    def branch(number: int, body: Any, counts: Array, *arguments: Any) -> tuple[list[Any], Array]:
        counts = counter.add(counts, place.site(f"branch {number}"))
        results, counts = counter.run(body, spread(arguments, used), counts, place)
        return chosen(results, place.needed), counts

    branches = [partial(branch, number, body) for number, body in enumerate(eqn.params["branches"])]
    results, counts = lax.switch(index, branches, counts, *chosen(arguments, used))
    return spread(results, place.needed), counts


def _kernel(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: _Place
) -> tuple[list[Any], Array]:
    """A hand-written kernel does not run here; what it computes must not decide about a loop."""
    results = [jnp.zeros(v.aval.shape, v.aval.dtype) for v in eqn.outvars]
    if kernel := kernel_of(eqn):
        counts = counter.add(counts, place.site("cycles"), cycles(eqn, kernel, inputs))
    return results, counter.add(counts, place.site("kernel"))


RULES: dict[str, Rule] = {"while": _while, "scan": _scan, "cond": _cond, KERNEL: _kernel}


def _flops(eqn: Any) -> float:
    """The floating-point operations of a matrix product or a convolution, as the plain sum."""
    name, options = eqn.primitive.name, eqn.params
    if name == "dot_general":
        ((contracted, _), _) = options["dimension_numbers"]
        left = eqn.invars[0].aval.shape
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        features = kernel[options["dimension_numbers"].rhs_spec[0]]
        zeros = math.prod(
            options["lhs_dilation"]
        )  # of the places that a dilated input has, this many are none
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / features / zeros
    return 0.0
