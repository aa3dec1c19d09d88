"""Layers, ResNet and FPN against their definitions, and torchvision's well-known sizes."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from masktrack_jax.models import layers
from masktrack_jax.models.fpn import FPN, upsample
from masktrack_jax.models.resnet import DEPTHS, Block, ResNet, Stem, frozen_names


def conv(x, kernel, stride=1):
    """Convolution with zero padding of half the kernel's size."""
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def randomised(variables, seed=0):
    """Variables with every leaf drawn anew, so that no scale is 1 and no bias 0; variances positive."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, x.shape).astype("f4")
        spread = 0.5 if x.ndim == 1 else 1.5 / math.sqrt(np.prod(x.shape[:-1]))
        return rng.normal(0, spread, x.shape).astype("f4")

    return jax.tree_util.tree_map_with_path(draw, variables)


def shapes_of(module, *arrays):
    return jax.eval_shape(module.init, jax.random.key(0), *arrays)


def conv_of(params, x, stride=1):
    """`layers.Conv` with these parameters (under a ConvNorm's "conv"), by `conv`."""
    params = params["conv"]["conv"]
    kernel = params["kernel"]
    kernel = kernel if kernel.ndim == 4 else kernel[None, None]  # a 1×1 is a matrix
    return conv(x, kernel, stride) + params.get("bias", 0)


def batch_norm(params, stats, x):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]


@pytest.mark.parametrize("size, stride", [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_conv_is_lax_conv(size, stride):
    x = np.random.default_rng(0).normal(size=(2, 9, 12, 4)).astype("f4")
    module = layers.Conv(5, size, stride)
    params = randomised(shapes_of(module, x))["params"]["conv"]
    kernel = params["kernel"].reshape(size, size, 4, 5)
    got = module.apply({"params": {"conv": params}}, x)
    np.testing.assert_allclose(got, conv(x, kernel, stride) + params["bias"], atol=2e-5)


def test_frozen_batch_norm_is_the_formula():
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype("f4")
    variables = randomised(shapes_of(layers.FrozenBatchNorm(), x))
    p, s = variables["params"], variables["batch_stats"]
    np.testing.assert_allclose(layers.FrozenBatchNorm().apply(variables, x), batch_norm(p, s, x), atol=1e-5)


@pytest.mark.parametrize("channels, groups", [(16, 2), (8, 1), (64, 8), (256, 32), (512, 32)])
def test_group_norm_is_the_definition(channels, groups):
    x = np.random.default_rng(2).normal(3, 2, size=(2, 5, 6, channels)).astype("f4")
    variables = randomised(shapes_of(layers.GroupNorm(), x))
    parts = x.astype(np.float64).reshape(2, 30, groups, -1)
    mean, var = (f(parts, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    wanted = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    wanted = wanted * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(layers.GroupNorm().apply(variables, x), wanted, atol=3e-5)


def test_published_initialisers():
    """Kaiming normal over the fan out, and Xavier uniform."""
    weights = layers.kaiming_fan_out(jax.random.key(0), (3, 3, 64, 128))
    assert float(jnp.std(weights)) == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    weights = layers.xavier_uniform(jax.random.key(0), (3, 3, 64, 128))
    limit = math.sqrt(6 / (9 * 64 + 9 * 128))
    assert 0.99 * limit < float(jnp.max(jnp.abs(weights))) <= limit


# Parameters of torchvision's resnet* without `fc`: 11,689,512 - 513,000 and so on.
SIZES = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160}


@pytest.mark.parametrize("depth", SIZES)
def test_resnets_have_torchvisions_parameters(depth):
    image = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    params = shapes_of(ResNet(depth), image)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == SIZES[depth]
    blocks, bottleneck = DEPTHS[depth]
    names = {f"stage{s + 1}_block{b + 1}" for s, count in enumerate(blocks) for b in range(count)}
    assert params.keys() == names | {"stem"}
    with_shortcut = {name for name in names if "downsample" in params[name]}
    assert with_shortcut == {f"stage{s}_block1" for s in ((1, 2, 3, 4) if bottleneck else (2, 3, 4))}
    levels = jax.eval_shape(lambda k, x: ResNet(depth).init_with_output(k, x)[0], jax.random.key(0), image)
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
    np.testing.assert_allclose(module.apply(variables, x), wanted, atol=5e-5)


def test_stem_is_its_diagram():
    """7×7 of stride 2, norm, ReLU, 3×3 max pooling of stride 2."""
    x = np.random.default_rng(8).normal(size=(2, 16, 24, 3)).astype("f4")
    variables = randomised(shapes_of(Stem(5, "frozen_bn"), x))
    p, s = variables["params"], variables["batch_stats"]["norm"]
    y = np.maximum(batch_norm(p["norm"], s, conv(x, p["kernel"], 2)), 0)
    y = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    wanted = np.zeros((2, 4, 6, 5))
    for i, j in np.ndindex(4, 6):
        wanted[:, i, j] = y[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    np.testing.assert_allclose(Stem(5, "frozen_bn").apply(variables, x), wanted, atol=5e-5)


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_frozen_stages_get_no_gradient_at_all(stages):
    x = np.random.default_rng(4).normal(size=(1, 64, 64, 3)).astype("f4")
    module = ResNet(18, width=4, frozen_stages=stages)
    variables = randomised(shapes_of(module, x))

    @jax.jit
    def gradient(params):
        def total(params):
            levels = module.apply({**variables, "params": params}, x)
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
    variables = randomised(shapes_of(ResNet(18, width=8, norm=norm), x))
    # XLA merges on CPUs what is computed again with what it was first, but for this option.
    options = {"xla_disable_hlo_passes": "cse_barrier_expander"}

    def gradient(remat):
        module = ResNet(18, width=8, norm=norm, remat=remat)
        assert jax.tree.structure(shapes_of(module, x)) == jax.tree.structure(variables)

        def total(params):
            return sum(jnp.sum(level**2) for level in module.apply({**variables, "params": params}, x))

        program = jax.jit(jax.grad(total)).lower(variables["params"]).compile(compiler_options=options)
        return program(variables["params"]), program.memory_analysis().temp_size_in_bytes

    (wanted, kept), (got, recomputed) = gradient(False), gradient(True)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    assert recomputed < 0.8 * kept


def test_fpn_is_its_diagram():
    """Lin et al. 2017: laterals, nearest upsampling and sum from the top, 3×3, and P6 from P5."""
    rng = np.random.default_rng(5)
    features = tuple(rng.normal(size=(2, 32 // s, 48 // s, 3 * s)).astype("f4") for s in (1, 2, 4, 8))
    module = FPN(channels=7)
    params = randomised(shapes_of(module, features))["params"]

    def at(name, x):
        return conv_of(params[name], x)

    inner = at("lateral5", features[3])
    wanted = [at("output5", inner)]
    for i in (4, 3, 2):
        inner = at(f"lateral{i}", features[i - 2]) + np.repeat(np.repeat(inner, 2, 1), 2, 2)
        wanted.insert(0, at(f"output{i}", inner))
    got = module.apply({"params": params}, features)
    for level, expected in zip(got, [*wanted, wanted[-1][:, ::2, ::2]], strict=True):
        np.testing.assert_allclose(level, expected, atol=1e-4)


def test_upsample_repeats_cells():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(upsample(x), np.repeat(np.repeat(x, 2, 1), 2, 2))


@pytest.mark.parametrize("norm", ["frozen_bn", "group"])
def test_bfloat16_computes_close_to_float32_with_float32_parameters(norm):
    x = jnp.asarray(np.random.default_rng(6).normal(size=(1, 64, 64, 3)), jnp.bfloat16)
    make = partial(ResNet, 18, width=8, norm=norm)
    variables = randomised(shapes_of(make(dtype=jnp.bfloat16), x))
    shapes = shapes_of(make(dtype=jnp.bfloat16), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    exact = jax.jit(make().apply)(variables, x.astype(jnp.float32))
    rough = jax.jit(make(dtype=jnp.bfloat16).apply)(variables, x)
    for level, (a, b) in enumerate(zip(exact, rough)):
        assert (a.dtype, b.dtype) == (jnp.float32, jnp.bfloat16)
        error = np.linalg.norm(a - b.astype(jnp.float32)) / np.linalg.norm(a)
        assert 0 < error < 0.05, (level, error)
