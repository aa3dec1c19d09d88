"""ResNet against its diagrams, and the well-known numbers of parameters of torchvision's."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models.forms import CPU, PLATFORMS, TPU, use_forms
from masktrack_jax.models.resnet import DEPTHS, Block, ResNet, Stem, frozen_names
from tests.helpers.networks import apply, batch_norm, conv, conv_of, randomised, shapes_of


def resnet(depth: int, width: int, **changes: Any) -> ResNet:
    """A ResNet in the reference's form but for `changes`."""
    options = dict(norm="frozen_bn", frozen_stages=1, stride_in_1x1=False, remat=False)
    return ResNet(depth, width, **{**options, **changes})


# Parameters of torchvision's resnet* without `fc`: 11,689,512 - 513,000 and so on.
SIZES = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160}


@pytest.mark.parametrize("depth", SIZES)
def test_resnets_have_torchvisions_parameters(depth):
    image = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    params = shapes_of(resnet(depth, width=64), image)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == SIZES[depth]
    blocks, bottleneck = DEPTHS[depth]
    names = {f"stage{s + 1}_block{b + 1}" for s, count in enumerate(blocks) for b in range(count)}
    assert params.keys() == names | {"stem"}
    with_shortcut = {name for name in names if "downsample" in params[name]}
    assert with_shortcut == {f"stage{s}_block1" for s in ((1, 2, 3, 4) if bottleneck else (2, 3, 4))}
    run = resnet(depth, width=64).init_with_output
    levels = jax.eval_shape(lambda key, x: run(key, x)[0], jax.random.key(0), image)
    width = 256 if bottleneck else 64
    assert [x.shape for x in levels] == [(1, 64 // s, 96 // s, width * s // 4) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize("bottleneck, in_1x1", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("stride", [1, 2])
def test_block_is_its_diagram(bottleneck, in_1x1, stride):
    """He et al. 2016, figure 5, with the stride in the 3×3 or, as there, in the first 1×1."""
    x = np.random.default_rng(3).normal(size=(1, 8, 10, 6)).astype("f4")
    module = Block(4, stride, bottleneck, "frozen_bn", in_1x1)
    variables = randomised(shapes_of(module, x))

    def conv_bn(name, x, stride=1, relu=True):
        p, s = variables["params"][name], variables["batch_stats"][name]["norm"]
        x = batch_norm(p["norm"], s, conv_of(p, x, stride))
        return np.maximum(x, 0) if relu else x

    if bottleneck:
        assert variables["params"]["conv2"]["conv"]["conv"]["kernel"].shape == (3, 3, 4, 4)
        first, second = (stride, 1) if in_1x1 else (1, stride)
        y = conv_bn("conv3", conv_bn("conv2", conv_bn("conv1", x, first), second), relu=False)
    else:
        y = conv_bn("conv2", conv_bn("conv1", x, stride), relu=False)
    wanted = np.maximum(y + conv_bn("downsample", x, stride, relu=False), 0)
    np.testing.assert_allclose(apply(module, variables, x), wanted, atol=5e-5)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_stem_is_its_diagram(platform):
    """7×7 of stride 2, norm, ReLU, 3×3 max pooling of stride 2."""
    x = np.random.default_rng(8).normal(size=(2, 16, 24, 3)).astype("f4")
    variables = randomised(shapes_of(Stem(5, "frozen_bn"), x))
    p, s = variables["params"], variables["batch_stats"]["norm"]
    y = np.maximum(batch_norm(p["norm"], s, conv(x, p["kernel"], 2)), 0)
    y = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    wanted = np.zeros((2, 4, 6, 5))
    for i, j in np.ndindex(4, 6):
        wanted[:, i, j] = y[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    with use_forms(PLATFORMS[platform]):
        np.testing.assert_allclose(apply(Stem(5, "frozen_bn"), variables, x), wanted, atol=5e-5)


def test_blocks_of_an_accelerator_have_the_gradients_of_a_cpu():
    """Stem and residual block, with batch norm in the kernels or behind them."""

    class Part(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Stem(8, "frozen_bn", name="stem")(x)
            return Block(4, 2, True, "frozen_bn", False, name="block")(x)

    x = jnp.asarray(np.random.default_rng(9).normal(size=(2, 16, 24, 3)), "f4")
    variables = randomised(shapes_of(Part(), x))

    found = []
    for chosen in (CPU, TPU):

        def total(variables, chosen=chosen):
            with use_forms(chosen):
                return jnp.sum(jnp.sin(Part().apply(variables, x)))

        found.append(jax.tree.leaves(jax.jit(jax.grad(total))(variables)))
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_frozen_stages_get_no_gradient_at_all(stages):
    x = np.random.default_rng(4).normal(size=(1, 64, 64, 3)).astype("f4")
    module = resnet(18, width=4, frozen_stages=stages)
    variables = randomised(shapes_of(module, x))

    @jax.jit
    def gradient(params):
        def total(params):
            levels = apply(module, {**variables, "params": params}, x)
            return sum(jnp.sum(level**2) for level in levels)

        return jax.grad(total)(params)

    for name, part in gradient(variables["params"]).items():
        frozen = bool(stages) and name.startswith(frozen_names(stages))
        stage = 0 if name == "stem" else int(name[5])
        assert frozen == (stages > 0 and stage <= stages)
        for path, leaf in jax.tree_util.tree_leaves_with_path(part):
            assert np.any(leaf) != frozen, (name, path)


@pytest.mark.parametrize("norm", ["frozen_bn", "group"])
def test_remat_is_less_memory_for_the_same_gradient(norm):
    x = np.random.default_rng(4).normal(size=(2, 128, 192, 3)).astype("f4")
    variables = randomised(shapes_of(resnet(18, width=8, norm=norm), x))
    # Without this option XLA merges the second computation with the first on CPUs.
    options = {"xla_disable_hlo_passes": "cse_barrier_expander"}

    def gradient(remat):
        module = resnet(18, width=8, norm=norm, remat=remat)
        assert jax.tree.structure(shapes_of(module, x)) == jax.tree.structure(variables)

        def total(params):
            return sum(jnp.sum(level**2) for level in apply(module, {**variables, "params": params}, x))

        program = jax.jit(jax.grad(total)).lower(variables["params"]).compile(compiler_options=options)
        return program(variables["params"]), program.memory_analysis().temp_size_in_bytes

    (wanted, kept), (got, recomputed) = gradient(False), gradient(True)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    assert recomputed < 0.8 * kept


@pytest.mark.parametrize("norm", ["frozen_bn", "group"])
def test_bfloat16_computes_close_to_float32_with_float32_parameters(norm):
    x = jnp.asarray(np.random.default_rng(6).normal(size=(1, 64, 64, 3)), jnp.bfloat16)
    make = partial(resnet, 18, width=8, norm=norm)
    variables = randomised(shapes_of(make(dtype=jnp.bfloat16), x))
    shapes = shapes_of(make(dtype=jnp.bfloat16), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    exact = jax.jit(make().apply)(variables, x.astype(jnp.float32))
    rough = jax.jit(make(dtype=jnp.bfloat16).apply)(variables, x)
    for level, (a, b) in enumerate(zip(exact, rough)):
        assert (a.dtype, b.dtype) == (jnp.float32, jnp.bfloat16)
        error = np.linalg.norm(a - b.astype(jnp.float32)) / np.linalg.norm(a)
        assert 0 < error < 0.05, (level, error)
