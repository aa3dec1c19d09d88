"""Cycles of the hand-written TPU kernels, of which XLA knows nothing, from what decides their loops."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from masktrack_jax.ops.roi_kernels import COLUMNS, ROWS, WHOLE, tiles

Shapes = Sequence[tuple[int, ...]]


class Kernel(NamedTuple):
    """How long a kernel takes: a function of the shapes of its operands and results, and of some operands."""

    operands: tuple[int, ...]  # the places of those operands
    cycles: Callable[..., Float[Array, ""]]


class Loops(NamedTuple):
    """Cycles of one turn of each loop of a RoIAlign kernel, for 256 channels in bfloat16.

    They are the bundles of instructions of the loops' bodies, as libtpu 0.0.42.1 compiles them for a v5e.
    That is a lower bound: waiting for the matrix unit and the first copy to fast memory are not in it.
    """

    box: float
    sample: float
    column: float  # of blocks of 16 × 16 cells
    block: float
    image: float = 0.0


FORWARD = {7: Loops(235, 32, 18, 206), 14: Loops(273, 32, 21, 536)}  # by the number of bins
BACKWARD = {7: Loops(191, 25, 17, 260, 12000), 14: Loops(219, 29, 20, 680, 12000)}
CHANNELS, PIXELS = 256, 384 * 640  # of an image in these measurements


def _roi_align(
    shapes: Shapes, whole: Int[Array, "steps 7 boxes"], *, loops: dict[int, Loops], pooled: int
) -> Float[Array, ""]:
    """Cycles of a RoIAlign kernel; `pooled` is the place of the pooled features among the shapes."""
    bins, channels = shapes[pooled][1], shapes[pooled][-1]
    _, rows, row_samples, _, columns, column_samples = (whole[:, k] for k in range(2 * WHOLE))
    by_row, by_column = tiles(rows, ROWS), tiles(columns, COLUMNS)
    turns = (
        rows > 0,
        by_row * by_column * jnp.maximum(row_samples, column_samples),
        by_row * columns,
        rows * columns,
    )
    each = loops[min(loops, key=lambda known: abs(known - bins))]
    total = jnp.float32(0)
    for count, cost in zip(turns, each):
        total += jnp.sum(count).astype(jnp.float32) * cost
    if each.image:  # the backward kernel's first result is the gradient of the finest maps, of stride 4
        images, height, width, _ = shapes[pooled + 1]
        total += each.image * images * height * width * 16 / PIXELS
    return total * (channels / CHANNELS)


# By the names that their `pallas_call` gives them; see ops/roi_window.py for the operands.
KERNELS = {
    "roi_align_forward": Kernel((2,), partial(_roi_align, loops=FORWARD, pooled=-1)),
    "roi_align_backward": Kernel((2,), partial(_roi_align, loops=BACKWARD, pooled=4)),
}


def kernel_of(eqn: Any) -> Kernel | None:
    """The entry of a `pallas_call`."""
    name = eqn.params.get("name") or getattr(eqn.params.get("name_and_src_info"), "name", "")
    return KERNELS.get(name)


def cycles(eqn: Any, kernel: Kernel, operands: Sequence[Any]) -> Float[Array, ""]:
    """The cycles of one call with these operands."""
    shapes = [v.aval.shape for v in (*eqn.invars, *eqn.outvars)]
    return kernel.cycles(shapes, *(operands[place] for place in kernel.operands))
