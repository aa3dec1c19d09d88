"""3×3 convolutions with half the multiplications, by Winograd's algorithm along the rows only.

See Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016. Four rows of the output need
six products instead of twelve: F(4, 3). Along a single axis, there are few sums before and after the
products, and they run over whole rows of memory, so they cost little compared with the products.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Images = Float[Array, "batch height width channels"]
Kernel = Float[Array, "3 3 channels features"]
Outputs = Float[Array, "batch height width features"]

ROWS = 4  # rows of the output computed at a time
POINTS = (0.0, 1.0, -1.0, 1 / 2, -2.0)  # and infinity; this set has small rounding errors
LAYOUT = ("NHWC", "HWIO", "NHWC")


class Matrices(NamedTuple):
    """A (`to_output`), G (`to_kernel`) and B (`to_input`) of a product of polynomials.

    A ((G g) ∘ (B d)) is the correlation of d (n,) with g (taps,), n = rows + taps - 1.
    """

    to_output: Float[np.ndarray, "rows n"]
    to_kernel: Float[np.ndarray, "n taps"]
    to_input: Float[np.ndarray, "n n"]


def matrices(rows: int, taps: int, points: Sequence[float]) -> Matrices:
    """Toom-Cook interpolation at the n - 1 `points` and infinity."""

    def powers(count: int) -> Float[np.ndarray, "n {count}"]:
        infinity = np.arange(count) == count - 1
        return np.concatenate([np.power.outer(np.array(points, np.float64), np.arange(count)), [infinity]])

    into = np.linalg.inv(powers(rows + taps - 1)).T
    into[np.abs(into) < 1e-12] = 0
    scale = np.abs(into).max(axis=1, keepdims=True)
    return Matrices(powers(rows).T, powers(taps) * scale, into / scale)


TO_OUTPUT, TO_KERNEL, TO_INPUT = matrices(ROWS, 3, POINTS)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3(x: Images, kernel: Kernel, exact: bool = False) -> Outputs:
    """3×3 convolution with zero padding of 1.

    In float32 its rounding error is about three times that of the plain sum. With `exact`, and whenever
    gradients are computed, the output is the plain sum, because the rounding would be visible in the recorded
    training runs. The gradients always use fewer products: XLA's own gradient of the kernel sums over whole
    images and is the slowest part of a training step on a CPU.
    """
    return plain_conv3x3(x, kernel) if exact else _fewer_products(x, kernel)


def _fewer_products(x: Images, kernel: Kernel) -> Outputs:
    batch, height, width, _ = x.shape
    strips = -(-height // ROWS)
    padded = jnp.pad(x, ((0, 0), (1, strips * ROWS + 1 - height), (0, 0), (0, 0)))
    inputs = [padded[:, i::ROWS][:, :strips] for i in range(len(TO_INPUT))]
    kernels = jnp.einsum("nr,rxck->nxck", jnp.asarray(TO_KERNEL, x.dtype), kernel)
    products = [
        lax.conv_general_dilated(
            _weighted(weights, inputs), kernel[None], (1, 1), ((0, 0), (1, 1)), dimension_numbers=LAYOUT
        )
        for weights, kernel in zip(TO_INPUT, kernels)
    ]
    outputs = jnp.stack([_weighted(weights, products) for weights in TO_OUTPUT], axis=2)
    return outputs.reshape(batch, strips * ROWS, width, -1)[:, :height]


def plain_conv3x3(x: Images, kernel: Kernel) -> Outputs:
    """`conv3x3` as a single XLA convolution."""
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)


def _forward(x: Images, kernel: Kernel, exact: bool) -> tuple[Outputs, tuple[Images, Kernel]]:
    return plain_conv3x3(x, kernel), (x, kernel)


def _backward(exact: bool, residuals: tuple[Images, Kernel], gradient: Outputs) -> tuple[Images, Kernel]:
    x, kernel = residuals
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return _fewer_products(gradient, turned), _kernel_gradient(x, gradient)


def _kernel_gradient(x: Images, gradient: Outputs) -> Kernel:
    """The gradient of the kernel as matrix products, six instead of twelve for every four rows.

    XLA's own gradient is a convolution, which is no faster, and 18 times slower in a conditional on a CPU.
    `stored` prevents XLA from fusing an array into the products, which would read it repeatedly.
    """
    _, height, width, channels = x.shape
    strips, stored = -(-height // ROWS), lax.optimization_barrier
    padded = jnp.pad(x, ((0, 0), (1, strips * ROWS + 1 - height), (1, 1), (0, 0)))
    inputs = [padded[:, i::ROWS][:, :strips] for i in range(len(TO_INPUT))]
    tall = jnp.pad(gradient, ((0, 0), (0, strips * ROWS - height), (0, 0), (0, 0)))
    turned = stored(tall.transpose(3, 0, 1, 2))
    outputs = [turned[:, :, i::ROWS] for i in range(ROWS)]

    def product(into: np.ndarray, out: np.ndarray) -> Array:
        rows = stored(_weighted(into, inputs))
        shifted = jnp.concatenate([rows[:, :, i : i + width] for i in range(3)], -1)
        columns = stored(_weighted(out, outputs).reshape(len(turned), -1))
        return columns @ stored(shifted.reshape(-1, 3 * channels))

    products = jnp.stack([product(*weights) for weights in zip(TO_INPUT, TO_OUTPUT.T)])
    products = products.reshape(len(TO_INPUT), -1, 3, channels)
    return jnp.einsum("nr,nkxc->rxck", jnp.asarray(TO_KERNEL, x.dtype), products)


conv3x3.defvjp(_forward, _backward)


def _weighted(weights: Float[np.ndarray, " n"], arrays: Iterable[Array]) -> Array:
    """The sum of arrays with constant weights; weights of 0 are skipped."""
    return cast(Array, sum(float(weight) * array for weight, array in zip(weights, arrays) if weight))
