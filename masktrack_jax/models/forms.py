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
    many_images: int  # from so many images on XLA's convolutions also do 1×1 kernels and upsampling; 0: never
    norm_in_kernel: bool  # frozen batch norm multiplies kernels instead of the results of convolutions
    stem_blocks: int  # side of the blocks of pixels in the stem: 2, or 4 with frozen batch norm
    upsample_as_product: bool  # with fewer images the FPN upsamples columns by a matrix product
    nms_rounds: int  # rounds of NMS before each test whether they settled all boxes
    coordinates_first: bool  # see `boxes.pairwise_iou`
    heads_boxes: int  # boxes for which the heads of detections run at a time; 0: in chunks of the valid boxes
    roi: Literal["walk", "dense", "window"]  # the form of `roi_align`
    target_chunk: int  # boxes whose mask targets `crop_masks` computes at a time


CPU = Forms(
    winograd=True,
    product_gradient=True,
    many_images=0,
    norm_in_kernel=False,
    stem_blocks=2,
    upsample_as_product=False,
    nms_rounds=1,
    coordinates_first=False,
    heads_boxes=0,
    roi="walk",
    target_chunk=1,
)
# The libraries of accelerators select the form of a product themselves. They prefer few large steps, since a
# GPU's host waits for each turn of a loop, and few passes over large arrays.
GPU = Forms(
    winograd=False,
    product_gradient=False,
    many_images=0,
    norm_in_kernel=True,
    stem_blocks=2,
    upsample_as_product=False,
    nms_rounds=8,
    coordinates_first=True,
    heads_boxes=512,
    roi="dense",
    target_chunk=16,
)
# A TPU's arrays lie in tiles of 8 × 128 elements, which pairs of rows or few channels do not fill. Products
# and convolutions prefer different orders of the axes, so a mixture of both copies large arrays. But the
# compiler splits few images for a convolution, which costs more than such copies.
TPU = GPU._replace(
    many_images=8, stem_blocks=4, upsample_as_product=True, nms_rounds=1, heads_boxes=256, roi="window"
)
PLATFORMS = {"cpu": CPU, "gpu": GPU, "tpu": TPU}
# Their vector memory is too small for `roi="window"`.
SMALL_TPUS = ("TPU v2", "TPU v3", "TPU v4", "TPU v4 lite")

_chosen: ContextVar[Forms | None] = ContextVar("forms", default=None)


def forms() -> Forms:
    """The forms of the block of `use_forms`, or else of the platform that JAX runs on."""
    return _chosen.get() or forms_of(jax.default_backend(), jax.local_devices()[0].device_kind)


def forms_of(platform: str, device_kind: str) -> Forms:
    """The forms of a platform, for a kind of its devices: `jax.Device.device_kind`."""
    return PLATFORMS[platform]._replace(roi="dense") if device_kind in SMALL_TPUS else PLATFORMS[platform]


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


def are_many(images: int) -> bool:
    """Whether XLA's convolutions also do 1×1 kernels and upsampling for so many images."""
    return 0 < forms().many_images <= images


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
    factor: Float[Array, " features"] | None = None,
    **options: Any,
) -> Float[Array, "batch _height _width features"]:
    """`lax.conv_general_dilated` in the platform's form.

    `exact`: see `winograd.conv3x3`; `factor`: see `scaled`.
    """
    kernel = scaled(kernel, factor)
    if uses_winograd(x.shape, x.dtype, kernel.shape, strides):
        return conv3x3(x, kernel, exact)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def scaled(
    kernel: Float[Array, "*size channels features"], factor: Float[Array, " features"] | None
) -> Float[Array, "*size channels features"]:
    """The kernel whose features have this `factor`, rounded to the kernel's type once."""
    return kernel if factor is None else (kernel * factor).astype(kernel.dtype)


def multiply(
    x: Float[Array, "*rows channels"],
    kernel: Float[Array, "channels features"],
    dimension_numbers: Any,
    factor: Float[Array, " features"] | None = None,
    **options: Any,
) -> Float[Array, "*rows features"]:
    """`lax.dot_general` of `x` and a kernel in the platform's form. `factor`: see `scaled`."""
    kernel = scaled(kernel, factor)
    if forms().product_gradient:
        return product(x, kernel)
    if x.ndim == 4 and kernel.shape[-1] >= 64 and are_many(len(x)):
        options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel[None, None], (1, 1), "VALID", **options)
    return lax.dot_general(x, kernel, dimension_numbers, **options)
