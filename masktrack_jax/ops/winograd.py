"""3×3 convolutions with half the multiplications (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2016), along the rows only.

Four rows of the output are made of six products in place of twelve: F(4, 3). Along one axis the sums before
and after the products are few and go over whole rows of memory, so that they cost little beside them.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROWS = 4  # of the output at a time
POINTS = (0, 1, -1, 1 / 2, -2)  # and infinity: of the small sets one with little rounding
LAYOUT = ("NHWC", "HWIO", "NHWC")


def matrices(rows, taps, points):
    """A (rows, n), G (n, taps) and B (n, n), n = rows + taps - 1, such that A ((G g) ∘ (B d)) is the
    correlation (rows,) of d (n,) with g (taps,): Toom and Cook's interpolation at `points` (n - 1,) and
    infinity.
    """

    def powers(count):
        infinity = np.arange(count) == count - 1
        return np.concatenate([np.power.outer(np.array(points, np.float64), np.arange(count)), [infinity]])

    into = np.linalg.inv(powers(rows + taps - 1)).T
    into[np.abs(into) < 1e-12] = 0
    scale = np.abs(into).max(axis=1, keepdims=True)
    return powers(rows).T, powers(taps) * scale, into / scale


TO_OUTPUT, TO_KERNEL, TO_INPUT = matrices(ROWS, 3, POINTS)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3(x, kernel, exact=False):
    """The convolution (B, H, W, K) of x (B, H, W, C) with `kernel` (3, 3, C, K), zero padding of 1.

    In float32 its rounding is about three times that of the plain sum. Where that would be too much (`exact`)
    or gradients are asked for it is the plain sum, since the rounding shows in the recorded course of a
    training. The gradients are made of few products in any case: XLA's own gradient of the kernel, whose sums
    run over whole images, is the slowest part of a step on a CPU.
    """
    return plain_conv3x3(x, kernel) if exact else _fewer_products(x, kernel)


def _fewer_products(x, kernel):
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


def plain_conv3x3(x, kernel):
    """The same as one convolution."""
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)


def _forward(x, kernel, exact):
    return plain_conv3x3(x, kernel), (x, kernel)


def _backward(exact, residuals, gradient):
    x, kernel = residuals
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return _fewer_products(gradient, turned), _kernel_gradient(x, gradient)


def _kernel_gradient(x, gradient):
    """That of the kernel (3, 3, C, K) as products of matrices, six in place of twelve of three each.

    XLA's own is of convolutions: no faster, and on a CPU 18 times slower within a conditional. What is
    `stored` is not merged into the products, which would read it again and again.
    """
    _, height, width, channels = x.shape
    strips, stored = -(-height // ROWS), lax.optimization_barrier
    padded = jnp.pad(x, ((0, 0), (1, strips * ROWS + 1 - height), (1, 1), (0, 0)))
    inputs = [padded[:, i::ROWS][:, :strips] for i in range(len(TO_INPUT))]
    tall = jnp.pad(gradient, ((0, 0), (0, strips * ROWS - height), (0, 0), (0, 0)))
    turned = stored(tall.transpose(3, 0, 1, 2))
    outputs = [turned[:, :, i::ROWS] for i in range(ROWS)]

    def product(into, out):
        rows = stored(_weighted(into, inputs))
        shifted = jnp.concatenate([rows[:, :, i : i + width] for i in range(3)], -1)
        columns = stored(_weighted(out, outputs).reshape(len(turned), -1))
        return columns @ stored(shifted.reshape(-1, 3 * channels))

    products = jnp.stack([product(*weights) for weights in zip(TO_INPUT, TO_OUTPUT.T)])
    products = products.reshape(len(TO_INPUT), -1, 3, channels)
    return jnp.einsum("nr,nkxc->rxck", jnp.asarray(TO_KERNEL, x.dtype), products)


conv3x3.defvjp(_forward, _backward)


def _weighted(weights, arrays):
    """The sum of arrays with constant weights, without those of weight 0."""
    return sum(float(weight) * array for weight, array in zip(weights, arrays) if weight)
