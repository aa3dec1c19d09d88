"""Cycles of the hand-written TPU kernels, of which XLA knows nothing, from what decides their loops."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array, Float


class Kernel(NamedTuple):
    """How long a kernel takes: a function of some of its operands."""

    operands: tuple[int, ...]  # the places of those operands
    cycles: Callable[..., Float[Array, ""]]


# By the names that their `pallas_call` gives them.
KERNELS: dict[str, Kernel] = {}


def kernel_of(eqn: Any) -> Kernel | None:
    """The entry of a `pallas_call`."""
    name = eqn.params.get("name") or getattr(eqn.params.get("name_and_src_info"), "name", "")
    return KERNELS.get(name)


def cycles(kernel: Kernel, operands: Sequence[Any]) -> Float[Array, ""]:
    """The cycles of one call with these operands."""
    return kernel.cycles(*(operands[place] for place in kernel.operands))
