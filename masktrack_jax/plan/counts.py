"""Count the turns of a program's data-dependent loops, and its products, by running its control flow here.

A traced program (jaxpr) is evaluated again with a vector of counters beside its values. Each body of a loop and
each branch of a conditional adds to its counter when it runs. Only the counters are asked for, so XLA drops
all work that does not decide how often something runs.
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

SLOTS = 4096  # counters
# Names that JAX puts into the path of an operation for control flow and calls, not for a scope.
NOT_A_SCOPE = re.compile(
    r"(jit|pjit|pmap|shard_map|closed_call|core_call|checkpoint|rematted_computation|remat2?|while|body|cond|"
    r"custom_jvp_call|custom_vjp_call\w*|branch_\d+_fun|scan|)(\(.*\))?$"
)


class Site(NamedTuple):
    """A place in the program: its scopes, the loops around it, and what is there.

    `kind` is "while" (a data-dependent loop), "scan" (one of a fixed length), "branch N" of a conditional,
    "entered" (times that a conditional was reached), "flops" or the name of a kernel.
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
    """How often each site of `function(*arguments)` runs. With `axis`, `function` runs within a pmap over it."""
    counter = _Counter()

    def counts(*arguments: Any) -> Float[Array, " slots"]:
        closed = jax.make_jaxpr(function)(*arguments)
        _, found = counter.run(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), counter.zeros(), (), 0)
        return found

    if axis:
        spread = jax.tree.map(lambda x: jnp.asarray(x)[None], arguments)
        found = jax.pmap(counts, axis, devices=jax.devices("cpu")[:1])(*spread)[0]
    else:
        found = jax.jit(counts)(*arguments)
    values = jax.device_get(found)
    return {site: float(values[slot]) for site, slot in counter.slots.items()}


class _Counter:
    """Evaluates a jaxpr with counters."""

    def __init__(self) -> None:
        self.slots: dict[Site, int] = {}

    def zeros(self) -> Float[Array, " slots"]:
        return jnp.zeros(SLOTS, jnp.float32)

    def add(self, counts: Array, site: Site, amount: float = 1.0) -> Array:
        return counts.at[self.slots.setdefault(site, len(self.slots))].add(amount)

    def run(
        self,
        jaxpr: core.Jaxpr,
        constants: Sequence[Any],
        arguments: Sequence[Any],
        counts: Array,
        outer: tuple[str, ...],
        depth: int,
    ) -> tuple[list[Any], Array]:
        """The results of a jaxpr, and the counters after it."""
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants)) | dict(zip(jaxpr.invars, arguments))
        flops: dict[tuple[str, ...], float] = {}
        for eqn in jaxpr.eqns:
            inputs = [v.val if isinstance(v, core.Literal) else values[v] for v in eqn.invars]
            place = outer + scopes(str(eqn.source_info.name_stack))
            rule = RULES.get(eqn.primitive.name) or (_call if _body(eqn) else None)
            if rule:
                results, counts = rule(self, eqn, inputs, counts, place, depth)
            else:
                if work := _flops(eqn):
                    flops[place] = flops.get(place, 0) + work
                results = eqn.primitive.bind(*inputs, **eqn.params)
                results = results if eqn.primitive.multiple_results else [results]
            values.update(zip(eqn.outvars, results))
        for place, work in flops.items():
            counts = self.add(counts, Site(place, depth, "flops"), work)
        return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars], counts


def _while(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: tuple[str, ...], depth: int
) -> tuple[list[Any], Array]:
    options = eqn.params
    n, m = options["cond_nconsts"], options["body_nconsts"]
    of_condition, of_body, start = inputs[:n], inputs[n : n + m], inputs[n + m :]
    condition, body = options["cond_jaxpr"], options["body_jaxpr"]

    def goes_on(carry: tuple[Array, list[Any]]) -> Array:
        arguments = [*of_condition, *carry[1]]
        (answer,), _ = counter.run(condition.jaxpr, condition.consts, arguments, carry[0], place, depth)
        return answer if answer.ndim == 0 else jnp.any(answer)

    def turn(carry: tuple[Array, list[Any]]) -> tuple[Array, list[Any]]:
        counts = counter.add(carry[0], Site(place, depth, "while"))
        arguments = [*of_body, *carry[1]]
        results, counts = counter.run(body.jaxpr, body.consts, arguments, counts, place, depth + 1)
        return counts, results

    counts, results = lax.while_loop(goes_on, turn, (counts, start))
    return results, counts


def _scan(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: tuple[str, ...], depth: int
) -> tuple[list[Any], Array]:
    options = eqn.params
    n, m = options["num_consts"], options["num_carry"]
    constants, start, rows = inputs[:n], inputs[n : n + m], inputs[n + m :]
    body = options["jaxpr"]

    def turn(carry: tuple[Array, list[Any]], rows: list[Any]) -> tuple[tuple[Array, list[Any]], list[Any]]:
        counts = counter.add(carry[0], Site(place, depth, "scan"))
        arguments = [*constants, *carry[1], *rows]
        results, counts = counter.run(body.jaxpr, body.consts, arguments, counts, place, depth + 1)
        return (counts, results[:m]), results[m:]

    (counts, carry), stacked = lax.scan(
        turn, (counts, start), rows, length=options["length"], reverse=options["reverse"]
    )
    return [*carry, *stacked], counts


def _cond(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: tuple[str, ...], depth: int
) -> tuple[list[Any], Array]:
    counts = counter.add(counts, Site(place, depth, "entered"))

    def branch(number: int, closed: Any, counts: Array, *arguments: Any) -> tuple[list[Any], Array]:
        counts = counter.add(counts, Site(place, depth, f"branch {number}"))
        return counter.run(closed.jaxpr, closed.consts, arguments, counts, place, depth)

    branches = [partial(branch, number, closed) for number, closed in enumerate(eqn.params["branches"])]
    index, *arguments = inputs
    return lax.switch(index, branches, counts, *arguments)


def _kernel(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: tuple[str, ...], depth: int
) -> tuple[list[Any], Array]:
    """A hand-written kernel does not run here; what it computes must not decide about a loop."""
    results = [jnp.zeros(v.aval.shape, v.aval.dtype) for v in eqn.outvars]
    return results, counter.add(counts, Site(place, depth, "kernel"))


def _call(
    counter: _Counter, eqn: Any, inputs: list[Any], counts: Array, place: tuple[str, ...], depth: int
) -> tuple[list[Any], Array]:
    body = _body(eqn)
    constants = body.consts if isinstance(body, core.ClosedJaxpr) else ()
    jaxpr = body.jaxpr if isinstance(body, core.ClosedJaxpr) else body
    return counter.run(jaxpr, constants, inputs, counts, place, depth)


CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat", "custom_jvp_call")


def _body(eqn: Any) -> Any:
    """The program that an operation calls, if it only calls it."""
    name = eqn.primitive.name
    if name in CALLS or name.startswith("custom_vjp_call"):
        return next((eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params), None)
    return None


RULES = {"while": _while, "scan": _scan, "cond": _cond, "pallas_call": _kernel}


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
        zeros = math.prod(options["lhs_dilation"])  # of the places that a dilated input has, this many are none
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / features / zeros
    return 0.0
