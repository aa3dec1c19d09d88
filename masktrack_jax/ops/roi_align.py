"""Exact RoIAlign over a feature pyramid, in bounded memory, forward and backward.

Its forms are equal up to rounding: see the modules of `FORMS`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.ops import roi_dense, roi_walk
from masktrack_jax.ops.roi_samples import Levels, Placed, RoIAlignOptions, place


def _window(levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions) -> Array:
    from masktrack_jax.ops import roi_window  # loads Pallas

    return roi_window.pool(levels, boxes, bins, options)


FORMS: dict[str, Callable[[Levels, Placed, int, RoIAlignOptions], Array]] = {
    "walk": roi_walk.pool,
    "dense": roi_dense.pool,
    "window": _window,
}


def roi_align(
    levels: Sequence[Float[Array | np.ndarray, "batch _rows _columns channels"]],
    strides: Sequence[int],
    boxes: Float[Array | np.ndarray, "groups boxes 4"],
    valid: Bool[Array | np.ndarray, "groups boxes"],
    options: RoIAlignOptions,
    *,
    bins: int,
    images: Int[Array | np.ndarray, "#groups #boxes"] | None = None,
    form: str = "walk",
) -> Float[Array, "groups boxes {bins} {bins} channels"]:
    """RoI features of boxes, each from the level that fits its size (Mask R-CNN, section 3).

    All `levels` belong to the same padded image size; their cells have `strides` pixels. Invalid boxes give
    zeros. Gradients flow only to `levels`, since boxes are constants, as in the paper. `images` are the index
    of each box's image; by default group i uses image i. `form`: a key of `FORMS`.
    """
    levels = tuple(levels)
    placed = place(levels, strides, lax.stop_gradient(boxes), valid, options, images)
    return FORMS[form](levels, placed, bins, options)
