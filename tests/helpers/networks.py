"""Layers by their definitions, and random variables for modules."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Variables = dict[str, Any]


def conv(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> jax.Array:
    """Convolution with zero padding of half the kernel's size."""
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def randomised(variables: Variables, seed: int = 0) -> Variables:
    """Variables with every leaf drawn anew, so that no scale is 1 and no bias 0; variances positive."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, x.shape).astype("f4")
        spread = 0.5 if x.ndim == 1 else 1.5 / math.sqrt(np.prod(x.shape[:-1]))
        return rng.normal(0, spread, x.shape).astype("f4")

    return jax.tree_util.tree_map_with_path(draw, variables)


def shapes_of(module: nn.Module, *arrays: Any) -> Variables:
    """Shapes of the variables of a module that takes `arrays`."""
    return jax.eval_shape(module.init, jax.random.key(0), *arrays)


def apply(module: nn.Module, variables: Variables, *arrays: Any) -> Any:
    """The module's outputs for NumPy arrays, or tuples of them."""
    return module.apply(variables, *jax.tree.map(jnp.asarray, arrays))


def conv_of(params: Variables, x: np.ndarray, stride: int = 1) -> jax.Array:
    """`layers.Conv` with these parameters (under a ConvNorm's "conv"), by `conv`."""
    params = params["conv"]["conv"]
    kernel = params["kernel"]
    kernel = kernel if kernel.ndim == 4 else kernel[None, None]  # a 1×1 is a matrix
    return conv(x, kernel, stride) + params.get("bias", 0)


def batch_norm(params: Variables, stats: Variables, x: np.ndarray) -> np.ndarray:
    """Batch norm in evaluation mode, by its formula."""
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]


def dense(params: Variables, name: str, x: np.ndarray) -> np.ndarray:
    """The fully connected layer `name`."""
    return x @ params[name]["kernel"] + params[name]["bias"]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def scatter_deconv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """out[2i + a, 2j + b] = x[i, j] @ W[a, b], one cell at a time."""
    n, h, w, _ = x.shape
    out = np.zeros((n, 2 * h, 2 * w, kernel.shape[-1]))
    for i, j, a, b in np.ndindex(h, w, 2, 2):
        out[:, 2 * i + a, 2 * j + b] += x[:, i, j] @ kernel[a, b]
    return out + bias


def slow_conv(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """3×3 convolution of x (B, H, W, C), zero padding of 1, in float64."""
    _, height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = (padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    return sum(parts)
