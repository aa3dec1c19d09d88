"""RoIAlign by Pallas kernels that read each box's window of cells from fast memory: the form of a TPU.

The levels of an image are copied to vector memory (VMEM) once, while boxes of the image before are pooled.
`roi_kernels` has what is done there. Levels that do not fit are pooled in the dense form.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.ops import roi_dense, roi_kernels
from masktrack_jax.ops.roi_kernels import COLUMNS, LANES, ROWS, SUBLANES, WHOLE, Axis, tiles
from masktrack_jax.ops.roi_samples import Interval, Levels, Placed, RoIAlignOptions, largest_bin, place

MOST_ROWS = 448  # rows of bins of one step of the grid
VMEM = 56 * 2**20  # bytes of VMEM that a kernel may use; the smallest of v5e, v5p, v6e and v7x have 64 MiB


class Turns(NamedTuple):
    """How often the loops of a kernel turn, for all boxes."""

    boxes: Int[Array, ""]
    samples: Int[Array, ""]
    columns: Int[Array, ""]  # of blocks
    blocks: Int[Array, ""]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def pool(
    levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions
) -> Float[Array, "groups boxes {bins} {bins} channels"]:
    """RoI features of boxes."""
    if not fits(levels, boxes, bins):
        return roi_dense.pool(levels, boxes, bins, options)
    return _on_tpu(partial(_forward, bins=bins, options=options), levels, boxes)


def _pool_forward(
    levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions
) -> tuple[Float[Array, "groups boxes {bins} {bins} channels"], tuple[Levels, Placed]]:
    return pool(levels, boxes, bins, options), (levels, boxes)


def _pool_backward(
    bins: int,
    options: RoIAlignOptions,
    residuals: tuple[Levels, Placed],  # of the levels, only the shapes are used
    gradient: Float[Array, "groups boxes {bins} {bins} channels"],
) -> tuple[Levels, None]:
    if not fits(*residuals, bins, gradient=True):
        return roi_dense.backward(bins, options, residuals, gradient)
    return _on_tpu(partial(_backward, bins=bins, options=options), *residuals, gradient), None


pool.defvjp(_pool_forward, _pool_backward)


def _on_tpu(call: Callable[..., Any], *arrays: Any) -> Any:
    """Call a kernel, which other platforms interpret."""
    return lax.platform_dependent(
        *arrays, tpu=partial(call, interpret=False), default=partial(call, interpret=True)
    )


def fits(levels: Levels, boxes: Placed, bins: int, gradient: bool = False) -> int:
    """The number of channels of which all levels of an image fit VMEM; 0 if none do."""
    dtype, channels = levels[0].dtype, levels[0].shape[-1]
    if dtype not in (jnp.bfloat16, jnp.float32):
        return 0
    cells = sum(level.shape[1] * _round_up(level.shape[2], COLUMNS) for level in levels)
    padded = bins * _round_up(bins, SUBLANES)
    pooled = _boxes_per_step(boxes, bins) * bins * _round_up(bins, 2 * SUBLANES)
    # What enters or leaves VMEM is there twice, so that copies overlap the computation.
    each = 2 * (cells + pooled) * dtype.itemsize + 4 * padded + (4 * cells if gradient else 0)
    widths = [k for k in range(channels, 0, -1) if channels % k == 0 and (k == channels or k % LANES == 0)]
    return next((k for k in widths if each * _round_up(k, LANES) <= VMEM), 0)


def turns(
    levels: Levels,
    strides: Sequence[int],
    boxes: Float[Array | np.ndarray, "groups boxes 4"],
    valid: Bool[Array | np.ndarray, "groups boxes"],
    options: RoIAlignOptions,
    *,
    bins: int,
) -> Turns:
    """How often the kernels' loops turn; only the shapes of the levels are used."""
    rows, columns = _axes(levels, place(levels, strides, boxes, valid, options, None), bins, options)
    by_row, by_column = tiles(rows.blocks, ROWS), tiles(columns.blocks, COLUMNS)
    each = (
        valid.astype(jnp.int32),
        by_row * by_column * jnp.maximum(rows.samples, columns.samples),
        by_row * columns.blocks,
        rows.blocks * columns.blocks,
    )
    return Turns(*map(jnp.sum, each))


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _boxes_per_step(boxes: Placed, bins: int) -> int:
    """The boxes of a step are consecutive, and all in one image."""
    if boxes.image is not None:
        return 1
    return max(k for k in range(1, MOST_ROWS // bins + 1) if boxes.valid.shape[1] % k == 0)


def _axes(levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions) -> tuple[Axis, Axis]:
    """The windows along the rows and along the columns."""

    def of(interval: Interval, axis: int, cells: int) -> Axis:
        start, length, limit = interval
        size = length / bins
        count = jnp.full_like(size, options.sampling) if options.sampling else jnp.ceil(size)
        step = size / jnp.maximum(count, 1)
        ends = start + step / 2, start + length - step / 2
        first, last = (jnp.floor(jnp.clip(end, 0, limit - 1)).astype(jnp.int32) for end in ends)
        if axis == 2:  # columns
            first = lax.div(first, cells) * cells
        blocks = lax.div(jnp.minimum(last + 1, limit - 1) - first, cells) + 1
        largest = options.sampling or largest_bin(levels, axis, bins, options)
        samples = jnp.minimum(count.astype(jnp.int32), largest)
        limit = limit.astype(size.dtype)
        return Axis(first, blocks, samples, start, size, step, limit, jnp.maximum(count, 1))

    rows, columns = of(boxes.rows, 1, ROWS), of(boxes.columns, 2, COLUMNS)
    return rows._replace(blocks=jnp.where(boxes.valid, rows.blocks, 0)), columns


class _Grid(NamedTuple):
    """What the steps of a kernel's grid do."""

    image: Int[Array, " steps"]
    place: Int[Array, " steps"]  # the step's place in the order of the boxes
    whole: Int[Array, "steps 7 boxes"]  # see `roi_kernels.Tables`
    real: Float[Array, "steps 10 boxes"]


def _grid(levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions) -> _Grid:
    size = _boxes_per_step(boxes, bins)
    if boxes.image is None:
        order = jnp.arange(boxes.valid.size // size, dtype=jnp.int32)
        image = lax.div(order * size, boxes.valid.shape[1])
    else:
        # The boxes of an image follow each other. Each image has one more, invalid box, since the gradient
        # has to visit every image.
        image = jnp.append(boxes.image.reshape(-1), jnp.arange(len(levels[0]), dtype=jnp.int32))
        order = jnp.argsort(image).astype(jnp.int32)
        image = image[order]

    def table(rows: list[Array]) -> Array:
        split = jnp.stack([row.reshape(-1, size) for row in rows], axis=1)
        return jnp.pad(split, [(0, len(order) - len(split)), (0, 0), (0, 0)])

    axes = _axes(levels, boxes, bins, options)
    whole = [number for axis in axes for number in axis[:WHOLE]]
    return _Grid(
        image,
        order,
        table([*whole, boxes.level]),
        table([number for axis in axes for number in axis[WHOLE:]]),
    )


def _forward(
    levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions, interpret: bool
) -> Float[Array, "groups boxes {bins} {bins} channels"]:
    grid, width = _grid(levels, boxes, bins, options), fits(levels, boxes, bins)
    levels = tuple(_whole_blocks(level) for level in levels)
    steps, _, size = grid.whole.shape
    pooled = jax.ShapeDtypeStruct((steps * size, bins, bins, levels[0].shape[-1]), levels[0].dtype)
    out = _call(
        roi_kernels.forward,
        grid,
        bins,
        levels,
        inputs=[_image_block(level, width) for level in levels],
        outputs=_box_block(pooled, size, width),
        shapes=pooled,
        scratch=[],
        interpret=interpret,
    )
    return out[: boxes.valid.size].reshape(*boxes.valid.shape, *out.shape[1:])


def _backward(
    levels: Levels,
    boxes: Placed,
    gradient: Float[Array, "groups boxes bins bins channels"],
    bins: int,
    options: RoIAlignOptions,
    interpret: bool,
) -> Levels:
    grid, width = _grid(levels, boxes, bins, options), fits(levels, boxes, bins, gradient=True)
    gradient = gradient.reshape(-1, *gradient.shape[2:])
    padded = jax.eval_shape(lambda: [_whole_blocks(level) for level in levels])
    out = _call(
        roi_kernels.backward,
        grid,
        bins,
        [gradient],
        inputs=[_box_block(gradient, grid.whole.shape[2], width)],
        outputs=[_image_block(level, width) for level in padded],
        shapes=padded,
        scratch=[pltpu.VMEM((*level.shape[1:3], width), jnp.float32) for level in padded],
        interpret=interpret,
    )
    return tuple(part[:, :, : level.shape[2]] for part, level in zip(out, levels, strict=True))


def _whole_blocks(level: Array | np.ndarray) -> Array:
    """Pad the rows of a level to a whole number of blocks."""
    return jnp.pad(level, [(0, 0), (0, 0), (0, -level.shape[2] % COLUMNS), (0, 0)])


def _image_block(level: Any, width: int) -> pl.BlockSpec:
    """`width` channels of a step's image."""
    return pl.BlockSpec((1, *level.shape[1:3], width), lambda c, step, image, place: (image[step], 0, 0, c))


def _box_block(pooled: Any, size: int, width: int) -> pl.BlockSpec:
    """`width` channels of a step's boxes."""
    last = pooled.shape[0] // size - 1

    def index(c: Array, step: Array, image: Any, place: Any) -> tuple[Array, int, int, Array]:
        return jnp.minimum(place[step], last), 0, 0, c

    return pl.BlockSpec((size, *pooled.shape[1:3], width), index)


def _call(
    kernel: Callable[..., None],
    grid: _Grid,
    bins: int,
    arrays: Sequence[Any],
    *,
    inputs: list[pl.BlockSpec],
    outputs: Any,
    shapes: Any,
    scratch: list[Any],
    interpret: bool,
) -> Any:
    """Call a kernel on the grid (blocks of channels, steps); its last scratch is for the bins of one box."""
    first = jax.tree.leaves(shapes)[0]
    width, channels = jax.tree.leaves(outputs)[0].block_shape[-1], first.shape[-1]
    padded = bins * _round_up(bins, SUBLANES)

    def scalars(table: Array) -> pl.BlockSpec:
        shape = (1, *table.shape[1:])
        return pl.BlockSpec(shape, lambda c, step, image, place: (place[step], 0, 0), memory_space=pltpu.SMEM)

    # XLA schedules copies beside the kernel by these numbers. Most boxes have 3 blocks.
    boxes, moved = len(grid.place) * grid.whole.shape[2], (*arrays, *jax.tree.leaves(shapes))
    cost = pl.CostEstimate(
        flops=boxes * 3 * ROWS * COLUMNS * 2 * padded * 2 * channels,
        bytes_accessed=sum(math.prod(array.shape) * array.dtype.itemsize for array in moved),
        transcendentals=0,
    )
    return pl.pallas_call(
        partial(kernel, bins=bins),
        out_shape=shapes,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(channels // width, len(grid.place)),
            in_specs=[scalars(grid.whole), scalars(grid.real), *inputs],
            out_specs=outputs,
            scratch_shapes=[*scratch, pltpu.VMEM((padded, width), jnp.float32)],
        ),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM + 2**22),
        cost_estimate=cost,
        interpret=interpret,
        name=f"roi_align_{kernel.__name__}",
    )(*grid, *arrays)
