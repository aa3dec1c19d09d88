"""Products of matrices whose gradient is fast on a CPU."""

import jax
from jax import lax


@jax.custom_vjp
def product(x, kernel):
    """x (…, C) times `kernel` (C, K).

    The same numbers as JAX's own, its gradient too; but that of the kernel is asked for with both its factors
    as they lie in memory. JAX's comes out turned, for which XLA first copies the gradient of the output, and
    the product then runs at half its rate.
    """
    return x @ kernel


def _forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _backward(residuals, gradient):
    x, kernel = residuals
    rows = (a.reshape(-1, a.shape[-1]) for a in (x, gradient))
    return gradient @ kernel.T, lax.dot_general(*rows, (((0,), (0,)), ((), ())))


product.defvjp(_forward, _backward)
