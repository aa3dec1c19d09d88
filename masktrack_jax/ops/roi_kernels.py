"""The Pallas kernels of `roi_window`: RoIAlign of boxes whose image is in a TPU's vector memory (VMEM).

A box is a loop over blocks of ROWS × COLUMNS cells of its window. The weights of a block's cells in all bins
are one matrix, the products of the rows' and the columns' weights, so a block is one matrix product. A TPU's
scalar core counts the loops; no host waits for them. Rows of a block beyond the last row have weight 0.

A row of bins has `padded` bins, a multiple of SUBLANES, in all matrices.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

ROWS, COLUMNS = 16, 16  # of a block; its columns begin at a multiple of COLUMNS, as tiles of bfloat16 do
LANES, SUBLANES = 128, 8  # of a TPU's vector

# References to memory, which Pallas gives a kernel.
Ref = Any
Visit = Callable[[Ref, list[Array], Array, Array], None]


class Axis(NamedTuple):
    """The window of each box along one axis, and its samples there: rows of `Tables`."""

    first: Int[Array, " boxes"]  # the first cell
    blocks: Int[Array, " boxes"]  # number of blocks; 0 along the rows of invalid boxes
    samples: Int[Array, " boxes"]  # of a bin
    start: Float[Array, " boxes"]
    size: Float[Array, " boxes"]  # of a bin
    step: Float[Array, " boxes"]  # between two samples
    limit: Float[Array, " boxes"]  # number of cells of the level
    divisor: Float[Array, " boxes"]  # of a sum over samples


WHOLE = 3  # the first fields of `Axis` are integers


class Tables(NamedTuple):
    """The numbers of the boxes of each step of the grid, in scalar memory."""

    whole: Int[Array, "steps 7 boxes"]  # the integers of the rows and of the columns, and the level
    real: Float[Array, "steps 10 boxes"]  # the other numbers of the rows and of the columns

    def axis(self, axis: int, n: Array) -> Axis:
        """The numbers of box `n` along the rows (0) or columns (1)."""
        real = len(Axis._fields) - WHOLE
        whole = [self.whole[0, axis * WHOLE + k, n] for k in range(WHOLE)]
        return Axis(*whole, *(self.real[0, axis * real + k, n] for k in range(real)))


def forward(image: Ref, place: Ref, whole: Ref, real: Ref, *refs: Ref, bins: int) -> None:
    """Pool the boxes of a step. `refs`: the levels of their image, the output, a float32 accumulator."""
    *levels, out, total = refs
    padded = total.shape[0] // bins

    def add(level: Ref, lines: list[Array], column: Array, weights: Array) -> None:
        cells = jnp.concatenate([level[0, line, pl.ds(column, COLUMNS), :] for line in lines])
        product = _dot(_halves(weights, cells.dtype), cells, ((1,), (0,)))
        total[...] += sum(product[k : k + len(weights)] for k in range(0, len(product), len(weights)))

    def box(n: Array) -> None:
        total[...] = jnp.zeros_like(total)
        _visit(Tables(whole, real), n, levels, [level.shape[1] for level in levels], bins, add)
        for b in range(bins):
            out[n, b] = total[b * padded : b * padded + bins, :].astype(out.dtype)

    _loop(out.shape[0], box)


def backward(image: Ref, place: Ref, whole: Ref, real: Ref, gradient: Ref, *refs: Ref, bins: int) -> None:
    """Add the gradient of a step's boxes to its image's levels.

    `refs`: the levels' gradients, their float32 accumulators, and a float32 copy of a box's gradient.
    """
    *both, wide = refs
    outs, totals = both[: len(both) // 2], both[len(both) // 2 :]
    padded = wide.shape[0] // bins
    step, last = pl.program_id(1), pl.num_programs(1) - 1

    @pl.when((step == 0) | (image[jnp.maximum(step - 1, 0)] != image[step]))
    def _() -> None:
        wide[...] = jnp.zeros_like(wide)
        for total in totals:
            _loop(len(total), partial(_fill, total))

    def box(n: Array) -> None:
        for b in range(bins):
            wide[b * padded : b * padded + bins, :] = gradient[n, b].astype(jnp.float32)
        rows = wide[...]
        if gradient.dtype == jnp.bfloat16:  # one copy for each half of the weights
            rows = jnp.concatenate([rows, rows]).astype(jnp.bfloat16)

        def add(total: Ref, lines: list[Array], column: Array, weights: Array) -> None:
            cells = _dot(_halves(weights, rows.dtype), rows, ((0,), (0,)))
            for k, line in enumerate(lines):
                total[line, pl.ds(column, COLUMNS), :] += cells[k * COLUMNS : (k + 1) * COLUMNS]

        _visit(Tables(whole, real), n, totals, [len(total) for total in totals], bins, add)

    _loop(len(gradient), box)

    @pl.when((step == last) | (image[jnp.minimum(step + 1, last)] != image[step]))
    def _() -> None:
        for out, total in zip(outs, totals, strict=True):
            _loop(len(total), partial(_round, out, total))


def _fill(total: Ref, line: Array) -> None:
    total[line] = jnp.zeros(total.shape[1:], total.dtype)


def _round(out: Ref, total: Ref, line: Array) -> None:
    out[0, line] = total[line].astype(out.dtype)


def _visit(
    tables: Tables, n: Array, levels: Sequence[Ref], heights: Sequence[int], bins: int, visit: Visit
) -> None:
    """Call `visit(level, lines, column, weights)` for each block of box `n`.

    The block has the rows `lines` and COLUMNS columns from `column` on; `weights` (bins², cells) are its
    cells' weights in all bins.
    """
    shape = (-(-bins // SUBLANES) * SUBLANES, LANES)
    lane = lax.broadcasted_iota(jnp.int32, shape, 1)
    rows, columns = tables.axis(0, n), tables.axis(1, n)

    def walk(level: Ref, height: int) -> None:
        def tile(t: Array, u: Array) -> None:
            in_columns, in_rows = _weights((columns, rows), (t, u), shape)

            def column(j: Array) -> None:
                across = jnp.take_along_axis(in_columns, j * COLUMNS + lax.rem(lane, COLUMNS), axis=1)
                left = pl.multiple_of(columns.first + t * LANES + j * COLUMNS, COLUMNS)

                def row(i: Array) -> None:
                    parts = []
                    for k in range(0, ROWS, LANES // COLUMNS):  # as many rows as there are lanes for
                        its_row = i * ROWS + k + lax.div(lane, COLUMNS)
                        down = jnp.take_along_axis(in_rows, its_row, axis=1)
                        parts.append(jnp.concatenate([down[b : b + 1] * across for b in range(bins)]))
                    top = rows.first + u * LANES + i * ROWS
                    lines = [jnp.minimum(top + k, height - 1) for k in range(ROWS)]
                    visit(level, lines, left, jnp.concatenate(parts, axis=1))

                _loop(_rest(rows.blocks, u, ROWS), row)

            _loop(_rest(columns.blocks, t, COLUMNS), column)

        _loop(tiles(columns.blocks, COLUMNS), lambda t: _loop(tiles(rows.blocks, ROWS), partial(tile, t)))

    for k, (level, height) in enumerate(zip(levels, heights, strict=True)):
        pl.when((tables.whole[0, 2 * WHOLE, n] == k) & (rows.blocks > 0))(partial(walk, level, height))


def tiles(blocks: Int[Array, "*boxes"], cells: int) -> Int[Array, "*boxes"]:
    """The number of tiles of LANES cells, for blocks of `cells` cells."""
    return lax.div(blocks + (LANES // cells - 1), LANES // cells)


def _rest(blocks: Array, tile: Array, cells: int) -> Array:
    """The number of blocks of a tile."""
    return jnp.minimum(blocks - tile * (LANES // cells), LANES // cells)


def _loop(count: Array | int, visit: Callable[[Array], None]) -> None:
    def turn(k: Array, none: tuple[()]) -> tuple[()]:
        visit(k)
        return none

    lax.fori_loop(0, count, turn, ())


def _weights(
    axes: Sequence[Axis], tile: Sequence[Array], shape: tuple[int, int]
) -> list[Float[Array, "padded lanes"]]:
    """The weights of a tile's cells in every bin along each axis, as in `roi_samples.cell_weights`."""
    number = lax.broadcasted_iota(jnp.int32, shape, 0).astype(jnp.float32)
    lane = lax.broadcasted_iota(jnp.int32, shape, 1)
    cells = [(axis.first + t * LANES + lane).astype(jnp.float32) for axis, t in zip(axes, tile, strict=True)]

    def add(s: Array, totals: list[Array]) -> list[Array]:
        def one(axis: Axis, cell: Array, total: Array) -> Array:
            position = axis.start + number * axis.size + (s.astype(jnp.float32) + 0.5) * axis.step
            tent = jnp.maximum(1 - jnp.abs(jnp.clip(position, 0, axis.limit - 1) - cell), 0)
            inside = (s < axis.samples) & (position >= -1) & (position <= axis.limit)
            return total + jnp.where(inside, tent, 0)

        return [one(*each) for each in zip(axes, cells, totals, strict=True)]

    zeros = [jnp.zeros(shape, jnp.float32) for _ in axes]
    totals = lax.fori_loop(0, jnp.maximum(*(axis.samples for axis in axes)), add, zeros)
    return [total / axis.divisor for total, axis in zip(totals, axes, strict=True)]


def _halves(weights: Float[Array, "bins cells"], dtype: DTypeLike) -> Float[Array, "_bins cells"]:
    """The weights as a matrix of the cells' type; in bfloat16 above a second one, which has the remainder.

    As in `roi_samples.split_bfloat16`, but a TPU joins float32 matrices of any height.
    """
    if dtype != jnp.bfloat16:
        return weights
    bits = lax.bitcast_convert_type(weights, jnp.uint32) & jnp.uint32(0xFFFF0000)
    high = lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.concatenate([high, weights - high]).astype(dtype)


def _dot(x: Array, y: Array, contract: tuple[tuple[int], tuple[int]]) -> Array:
    precision = None if y.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    numbers = (contract, ((), ()))
    return lax.dot_general(x, y, numbers, precision=precision, preferred_element_type=jnp.float32)
