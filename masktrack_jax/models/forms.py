"""Select the fastest form of a computation for the platform. No other model code depends on the platform.

All forms of a computation give the same result up to rounding; they differ in speed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from masktrack_jax.ops.fast_matmul import product
from masktrack_jax.ops.winograd import conv3x3


class Forms(NamedTuple):
    """The forms used on one kind of platform."""

    winograd: bool  # large 3×3 convolutions use `winograd.conv3x3`
    product_gradient: bool  # matrix products use `fast_matmul.product`
    conditional_gradient: bool  # gradients of XLA's own convolutions are fast within a conditional
    roi: Literal["walk", "dense", "window"]  # the form of `roi_align`
    target_chunk: int  # boxes whose mask targets `crop_masks` computes at a time


# On a CPU, XLA's own gradient of a convolution is up to 18 times slower inside a conditional than outside.
CPU = Forms(winograd=True, product_gradient=True, conditional_gradient=False, roi="walk", target_chunk=1)
# The libraries of accelerators select the form of a product themselves.
GPU = Forms(winograd=False, product_gradient=False, conditional_gradient=True, roi="dense", target_chunk=16)
TPU = GPU._replace(roi="window")
PLATFORMS = {"cpu": CPU, "gpu": GPU, "tpu": TPU}

_chosen: ContextVar[Forms | None] = ContextVar("forms", default=None)


def forms() -> Forms:
    """The forms of the block of `use_forms`, or else of the platform that JAX runs on."""
    return _chosen.get() or PLATFORMS[jax.default_backend()]


@contextlib.contextmanager
def use_forms(chosen: Forms) -> Iterator[None]:
    """Trace with other forms, to compile for another platform or to compare forms on one.

    Functions that `jax.jit` has traced before keep the forms they were traced with.
    """
    token = _chosen.set(chosen)
    try:
        yield
    finally:
        _chosen.reset(token)


def uses_winograd(
    shape: Sequence[int], dtype: DTypeLike, kernel: Sequence[int], strides: Sequence[int] = (1, 1)
) -> bool:
    """Whether `convolve` uses `conv3x3` for images of `shape` (NHWC) and a kernel of shape `kernel` (HWIO).

    It halves the multiplications, which is faster only for large convolutions.
    """
    batch, height, width, channels = shape
    plain = tuple(kernel[:2]) == (3, 3) and tuple(strides) == (1, 1) and dtype == jnp.float32
    large = batch * height * width >= 512 and min(channels, kernel[-1]) >= 64
    return plain and large and forms().winograd


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    exact: bool = False,
    **options: Any,
) -> Float[Array, "batch _height _width features"]:
    """`lax.conv_general_dilated` in the platform's form. `exact`: see `winograd.conv3x3`."""
    if uses_winograd(x.shape, x.dtype, kernel.shape, strides):
        return conv3x3(x, kernel, exact)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def multiply(
    x: Float[Array, "*rows channels"],
    kernel: Float[Array, "channels features"],
    dimension_numbers: Any,
    **options: Any,
) -> Float[Array, "*rows features"]:
    """`lax.dot_general` of `x` and a kernel in the platform's form."""
    if forms().product_gradient:
        return product(x, kernel)
    return lax.dot_general(x, kernel, dimension_numbers, **options)
