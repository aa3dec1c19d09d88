"""Which values of a traced program decide how often its parts run.

XLA would not drop the others by itself: values that pass through a loop in a loop stay in both.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import core

from masktrack_jax.plan.kernels import kernel_of

CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat", "custom_jvp_call")
KERNEL = "pallas_call"

Mask = tuple[bool, ...]


class Needed(NamedTuple):
    """For the needed results of a program: its needed inputs, and the needed results of each equation."""

    inputs: Mask
    equations: list[Mask]


class Loop(NamedTuple):
    """For the needed results of a loop: its needed constants, carried values and rows."""

    condition: Mask
    body: Mask
    carry: Mask
    rows: Mask  # of a scan


def called(eqn: Any) -> Any:
    """The program that an equation calls, if it only calls it; else None."""
    name = eqn.primitive.name
    if name in CALLS or name.startswith("custom_vjp_call"):
        names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
        return next((eqn.params[key] for key in names if key in eqn.params), None)
    return None


def opened(body: Any) -> tuple[core.Jaxpr, Sequence[Any]]:
    """A program and its constants."""
    return (body.jaxpr, body.consts) if isinstance(body, core.ClosedJaxpr) else (body, ())


class Needs:
    """Answers for the programs within one program; each question is worked out once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Mask], Needed] = {}

    def of(self, jaxpr: core.Jaxpr, results: Mask) -> Needed:
        """What is needed for these results, and for all loops and branches."""
        key = id(jaxpr), results
        if key not in self._known:
            self._known[key] = self._backward(jaxpr, results)
        return self._known[key]

    def _backward(self, jaxpr: core.Jaxpr, results: Mask) -> Needed:
        needed = {v for v, use in zip(jaxpr.outvars, results) if use and not isinstance(v, core.Literal)}
        masks: list[Mask] = []
        for eqn in reversed(jaxpr.eqns):
            mask = tuple(v in needed for v in eqn.outvars)
            masks.append(mask)
            inputs = self._inputs(eqn, mask)
            needed |= {v for v, use in zip(eqn.invars, inputs) if use and not isinstance(v, core.Literal)}
        return Needed(tuple(v in needed for v in jaxpr.invars), masks[::-1])

    def _inputs(self, eqn: Any, mask: Mask) -> Mask:
        name = eqn.primitive.name
        if name == KERNEL:
            kernel = kernel_of(eqn)
            return tuple(kernel is not None and place in kernel.operands for place in range(len(eqn.invars)))
        if name == "while":
            loop = self.of_while(eqn, mask)
            return loop.condition + loop.body + loop.carry
        if name == "scan":
            loop = self.of_scan(eqn, mask)
            return loop.body + loop.carry + loop.rows
        if name == "cond":
            branches = [self.of(branch.jaxpr, mask).inputs for branch in eqn.params["branches"]]
            return (True, *map(any, zip(*branches)))
        if body := called(eqn):
            return self.of(opened(body)[0], mask).inputs
        return (any(mask),) * len(eqn.invars)

    def of_while(self, eqn: Any, mask: Mask) -> Loop:
        """The needs of a `while`: its condition's always."""
        n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        condition = self.of(eqn.params["cond_jaxpr"].jaxpr, (True,)).inputs
        carry = either(mask, condition[n:])
        while True:
            body = self.of(eqn.params["body_jaxpr"].jaxpr, carry).inputs
            if (more := either(carry, body[m:])) == carry:
                return Loop(condition[:n], body[:m], carry, ())
            carry = more

    def of_scan(self, eqn: Any, mask: Mask) -> Loop:
        """The needs of a loop of a fixed length."""
        n, m = eqn.params["num_consts"], eqn.params["num_carry"]
        carry = mask[:m]
        while True:
            body = self.of(eqn.params["jaxpr"].jaxpr, carry + mask[m:]).inputs
            if (more := either(carry, body[n : n + m])) == carry:
                return Loop((), body[:n], carry, body[n + m :])
            carry = more


def either(a: Mask, b: Mask) -> Mask:
    """Places that are in one of two masks."""
    return tuple(x or y for x, y in zip(a, b))


def chosen(values: Sequence[Any], mask: Mask) -> list[Any]:
    """The values at the places of a mask."""
    return [value for value, use in zip(values, mask) if use]


def spread(values: Sequence[Any], mask: Mask) -> list[Any]:
    """The reverse of `chosen`, with None at the other places."""
    left = iter(values)
    return [next(left) if use else None for use in mask]
