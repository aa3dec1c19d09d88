"""Small networks as other implementations store and compute them: NumPy, in PyTorch's layouts.

Written from the sources' documentation, independently of masktrack_jax/interop.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
WIDTH, CHANNELS, FEATURES, EMBEDDING, MASK_CONVS = 8, 16, 24, 12, 2  # EMBEDDING: of the track head


Block = Callable[[int, int, int], tuple[str, str]]


class Names(NamedTuple):
    """A source's names of its layers; stages from 1, blocks from 0, convolutions from 1, levels from 0."""

    stem: tuple  # convolution, norm
    block: Any  # (stage, block, convolution) -> convolution, norm; 0 is the shortcut's
    lateral: Any
    output: Any
    rpn: tuple  # shared, logits, deltas
    fcs: tuple
    box: tuple  # class logits, deltas
    mask: Any  # convolution
    mask_out: tuple  # transposed convolution, logits
    track: tuple = ()


def openmmlab_block(prefix: str) -> Block:
    def names(s: int, b: int, c: int) -> tuple[str, str]:
        at = f"{prefix}layer{s}.{b}"
        return (f"{at}.conv{c}", f"{at}.bn{c}") if c else (f"{at}.downsample.0", f"{at}.downsample.1")

    return names


def detectron2_block(s: int, b: int, c: int) -> tuple[str, str]:
    conv = f"backbone.bottom_up.res{s + 1}.{b}." + (f"conv{c}" if c else "shortcut")
    return conv, f"{conv}.norm"


def openmmlab(prefix: str = "", roi_head: str = "roi_head.", track: tuple[str, ...] = ()) -> Names:
    return Names(
        stem=(f"{prefix}backbone.conv1", f"{prefix}backbone.bn1"),
        block=openmmlab_block(f"{prefix}backbone."),
        lateral=lambda i: f"{prefix}neck.lateral_convs.{i}.conv",
        output=lambda i: f"{prefix}neck.fpn_convs.{i}.conv",
        rpn=tuple(f"{prefix}rpn_head.rpn_{name}" for name in ("conv", "cls", "reg")),
        fcs=tuple(f"{prefix}{roi_head}bbox_head.shared_fcs.{i}" for i in (0, 1)),
        box=(f"{prefix}{roi_head}bbox_head.fc_cls", f"{prefix}{roi_head}bbox_head.fc_reg"),
        mask=lambda i: f"{prefix}{roi_head}mask_head.convs.{i}.conv",
        mask_out=tuple(f"{prefix}{roi_head}mask_head.{name}" for name in ("upsample", "conv_logits")),
        track=track,
    )


def torchvision(*, old: bool) -> Names:
    return Names(
        stem=("backbone.body.conv1", "backbone.body.bn1"),
        block=openmmlab_block("backbone.body."),
        lateral=lambda i: f"backbone.fpn.inner_blocks.{i}" + ("" if old else ".0"),
        output=lambda i: f"backbone.fpn.layer_blocks.{i}" + ("" if old else ".0"),
        rpn=("rpn.head.conv" + ("" if old else ".0.0"), "rpn.head.cls_logits", "rpn.head.bbox_pred"),
        fcs=("roi_heads.box_head.fc6", "roi_heads.box_head.fc7"),
        box=("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
        mask=lambda i: "roi_heads.mask_head." + (f"mask_fcn{i + 1}" if old else f"{i}.0"),
        mask_out=tuple(f"roi_heads.mask_predictor.{name}" for name in ("conv5_mask", "mask_fcn_logits")),
    )


NAMES = {
    "mmtracking": openmmlab(
        "detector.", track=("track_head.embed_head.fcs.0", "track_head.embed_head.fcs.1")
    ),
    "original": openmmlab(roi_head="", track=("track_head.fcs.0", "track_head.fcs.1")),
    "mmdet": openmmlab(),
    "mmdet 1": openmmlab(roi_head=""),
    "torchvision": torchvision(old=False),
    "torchvision 0.5": torchvision(old=True),
    "detectron2": Names(
        stem=("backbone.bottom_up.stem.conv1", "backbone.bottom_up.stem.conv1.norm"),
        block=detectron2_block,
        lateral=lambda i: f"backbone.fpn_lateral{i + 2}",
        output=lambda i: f"backbone.fpn_output{i + 2}",
        rpn=tuple(
            f"proposal_generator.rpn_head.{name}" for name in ("conv", "objectness_logits", "anchor_deltas")
        ),
        fcs=("roi_heads.box_head.fc1", "roi_heads.box_head.fc2"),
        box=("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
        mask=lambda i: f"roi_heads.mask_head.mask_fcn{i + 1}",
        mask_out=("roi_heads.mask_head.deconv", "roi_heads.mask_head.predictor"),
    ),
    "classifier": Names(("conv1", "bn1"), openmmlab_block(""), None, None, (), (), (), None, ()),
}


def widths(depth: int) -> list[int]:
    """Channels of C2–C5."""
    return [WIDTH * 2**i * (4 if depth >= 50 else 1) for i in range(4)]


def make_state(
    names: Names,
    depth: int,
    rows: tuple[int, int, int] | None = None,
    *,
    seed: int = 0,
    stem_gain: float = 1.0,
) -> dict[str, np.ndarray]:
    """A state dict {name: array} by rule. `rows`: outputs of the class logits, the deltas and the masks."""
    rng, state = np.random.default_rng(seed), {}

    def layer(
        name: str, shape: tuple[int, ...], *, bias: bool = True, fan_in: int | None = None, gain: float = 1.0
    ) -> None:
        scale = gain * np.sqrt(2 / (fan_in or np.prod(shape[1:])))
        state[f"{name}.weight"] = (scale * rng.standard_normal(shape)).astype("f4")
        if bias:
            state[f"{name}.bias"] = rng.normal(0, 0.3, shape[0] if fan_in is None else fan_in).astype("f4")

    def conv_norm(pair: Sequence[str], out: int, into: int, size: int, gain: float = 1.0) -> Any:
        layer(pair[0], (out, into, size, size), bias=False, gain=gain)
        for leaf, low, high in (("weight", 0.4, 0.9), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2)):
            state[f"{pair[1]}.{leaf}"] = rng.uniform(low, high, out).astype("f4")
        state[f"{pair[1]}.running_var"] = rng.uniform(0.5, 1.5, out).astype("f4")

    conv_norm(names.stem, WIDTH, 3, 7, stem_gain)
    into = WIDTH
    for s, (blocks, out) in enumerate(zip(BLOCKS[depth], widths(depth)), start=1):
        inner = WIDTH * 2 ** (s - 1)
        for b in range(blocks):
            if depth >= 50:
                sizes = ((inner, into, 1), (inner, inner, 3), (out, inner, 1))
            else:
                sizes = ((inner, into, 3), (out, inner, 3))
            for c, size in enumerate(sizes, start=1):
                conv_norm(names.block(s, b, c), *size)
            if b == 0 and (into != out or s > 1):
                conv_norm(names.block(s, b, 0), out, into, 1)
            into = out
    if not names.rpn:
        return state
    for i, channels in enumerate(widths(depth)):
        layer(names.lateral(i), (CHANNELS, channels, 1, 1))
        layer(names.output(i), (CHANNELS, CHANNELS, 3, 3))
    for name, out, size in zip(names.rpn, (CHANNELS, 3, 12), (3, 1, 1)):
        layer(name, (out, CHANNELS, size, size))
    for name, into in zip(names.fcs, (CHANNELS * 49, FEATURES)):
        layer(name, (FEATURES, into))
    for i in range(MASK_CONVS):
        layer(names.mask(i), (CHANNELS, CHANNELS, 3, 3))
    layer(names.mask_out[0], (CHANNELS, CHANNELS, 2, 2), fan_in=CHANNELS)
    for name, into in zip(names.track, (CHANNELS * 49, EMBEDDING)):
        layer(name, (EMBEDDING, into))
    logits, deltas, masks = rows
    layer(names.box[0], (logits, FEATURES))
    layer(names.box[1], (deltas, FEATURES))
    layer(names.mask_out[1], (masks, CHANNELS, 1, 1))
    return state


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, stride: int = 1) -> np.ndarray:
    """x (N, C, H, W), weight (O, C, k, k), zero padding of k // 2."""
    size = weight.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    windows = sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    out = np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)
    return out if bias is None else out + bias[:, None, None]


class Network:
    """The network of a state dict with these names, in float64."""

    def __init__(
        self,
        state: dict[str, np.ndarray],
        names: Names,
        depth: int,
        *,
        epsilon: float = 1e-05,
        stride_in_1x1: bool = False,
    ) -> None:
        self.state = {name: x.astype(np.float64) for name, x in state.items()}
        self.names, self.depth, self.epsilon, self.stride_in_1x1 = names, depth, epsilon, stride_in_1x1

    def conv(self, name: str, x: np.ndarray) -> np.ndarray:
        return conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def conv_norm(self, pair: Sequence[str], x: np.ndarray, stride: int = 1) -> Any:
        x = conv2d(x, self.state[f"{pair[0]}.weight"], stride=stride)
        leaves = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (self.state[f"{pair[1]}.{leaf}"][:, None, None] for leaf in leaves)
        return (x - mean) / np.sqrt(var + self.epsilon) * weight + bias

    def backbone(self, x: np.ndarray) -> list[np.ndarray]:
        """C2–C5 of the source's input (N, 3, H, W)."""
        x = relu(self.conv_norm(self.names.stem, x, 2))
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        x = sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((-2, -1))
        levels = []
        for s, blocks in enumerate(BLOCKS[self.depth], start=1):
            for b in range(blocks):
                stride = 2 if s > 1 and b == 0 else 1
                strides = {1: 1, 2: stride, 3: 1} if self.depth >= 50 else {1: stride, 2: 1}
                if self.stride_in_1x1:
                    strides = {1: stride, 2: 1, 3: 1}
                y = x
                for c in strides:
                    y = self.conv_norm(self.names.block(s, b, c), y, strides[c])
                    y = relu(y) if c < len(strides) else y
                shortcut = self.names.block(s, b, 0)
                x = self.conv_norm(shortcut, x, stride) if f"{shortcut[0]}.weight" in self.state else x
                x = relu(x + y)
            levels.append(x)
        return levels

    def pyramid(self, x: np.ndarray) -> list[np.ndarray]:
        """P2–P6."""
        laterals = [self.conv(self.names.lateral(i), c) for i, c in enumerate(self.backbone(x))]
        for i in (3, 2, 1):
            laterals[i - 1] = laterals[i - 1] + laterals[i].repeat(2, 2).repeat(2, 3)
        levels = [self.conv(self.names.output(i), x) for i, x in enumerate(laterals)]
        return [*levels, levels[-1][:, :, ::2, ::2]]

    def rpn(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, 3, H, W) and deltas (N, 12, H, W) of one level."""
        x = relu(self.conv(self.names.rpn[0], x))
        return self.conv(self.names.rpn[1], x), self.conv(self.names.rpn[2], x)

    def boxes(self, roi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class logits and deltas, in the source's order, of RoI features (M, C, 7, 7)."""
        x = roi.reshape(len(roi), -1)
        for name in self.names.fcs:
            x = relu(self.linear(name, x))
        return self.linear(self.names.box[0], x), self.linear(self.names.box[1], x)

    def masks(self, roi: np.ndarray) -> np.ndarray:
        """Mask logits (M, classes, 28, 28) of RoI features (M, C, 14, 14)."""
        x = roi
        for i in range(MASK_CONVS):
            x = relu(self.conv(self.names.mask(i), x))
        kernel = self.state[f"{self.names.mask_out[0]}.weight"]
        out = np.zeros((len(x), kernel.shape[1], 2 * x.shape[2], 2 * x.shape[3]))
        for a, b in np.ndindex(2, 2):
            out[:, :, a::2, b::2] = np.einsum("nihw,io->nohw", x, kernel[:, :, a, b])
        out = relu(out + self.state[f"{self.names.mask_out[0]}.bias"][:, None, None])
        return self.conv(self.names.mask_out[1], out)

    def embeddings(self, roi: np.ndarray, *, relu_last: bool) -> np.ndarray:
        """Embeddings (M, E) of RoI features (M, C, 7, 7)."""
        x = relu(self.linear(self.names.track[0], roi.reshape(len(roi), -1)))
        x = self.linear(self.names.track[1], x)
        return relu(x) if relu_last else x
