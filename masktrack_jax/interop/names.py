"""One table that maps the names and memory layouts of our parameters to mmdet's.

mmdet's names are those of mmtracking's files without `detector.`. PyTorch's layouts are (out, in, height,
width) for convolutions, (in, out, height, width) for transposed ones and (out, in) for linear layers. Ours
are (height, width, in, out) for convolutions, and (in, out) for linear layers and 1×1 convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from masktrack_jax.interop.source_names import BOX, MASK

BINS = 7  # bins along each side of the RoI features of the fully connected layers

BLOCK = r"backbone/stage(\d)_block(\d+)"
# Our module, its name in mmdet, and the layout of its kernel. "norm" stands for bn or gn.
MODULES: tuple[tuple[str, Callable[..., str], str | None], ...] = (
    (r"backbone/stem", lambda: "backbone.conv1", "conv"),
    (r"backbone/stem/norm", lambda: "backbone.norm1", None),
    (BLOCK + r"/conv(\d)/conv/conv", lambda s, b, c: f"backbone.layer{s}.{b - 1}.conv{c}", "conv"),
    (BLOCK + r"/conv(\d)/norm", lambda s, b, c: f"backbone.layer{s}.{b - 1}.norm{c}", None),
    (BLOCK + r"/downsample/conv/conv", lambda s, b: f"backbone.layer{s}.{b - 1}.downsample.0", "conv"),
    (BLOCK + r"/downsample/norm", lambda s, b: f"backbone.layer{s}.{b - 1}.downsample.1", None),
    (r"fpn/lateral(\d)/conv/conv", lambda i: f"neck.lateral_convs.{i - 2}.conv", "conv"),
    (r"fpn/lateral(\d)/norm", lambda i: f"neck.lateral_convs.{i - 2}.norm", None),
    (r"fpn/output(\d)/conv/conv", lambda i: f"neck.fpn_convs.{i - 2}.conv", "conv"),
    (r"fpn/output(\d)/norm", lambda i: f"neck.fpn_convs.{i - 2}.norm", None),
    (r"rpn_head/conv/conv", lambda: "rpn_head.rpn_conv", "conv"),
    (r"rpn_head/logits/conv", lambda: "rpn_head.rpn_cls", "conv"),
    (r"rpn_head/deltas/conv", lambda: "rpn_head.rpn_reg", "conv"),
    (r"box_head/conv(\d+)/conv/conv", lambda i: f"{BOX}.shared_convs.{i - 1}.conv", "conv"),
    (r"box_head/conv(\d+)/norm", lambda i: f"{BOX}.shared_convs.{i - 1}.norm", None),
    (r"box_head/fc1", lambda: f"{BOX}.shared_fcs.0", "roi"),
    (r"box_head/fc2", lambda: f"{BOX}.shared_fcs.1", "linear"),
    (r"box_head/logits", lambda: f"{BOX}.fc_cls", "linear"),
    (r"box_head/deltas", lambda: f"{BOX}.fc_reg", "linear"),
    (r"mask_head/conv(\d+)/conv/conv", lambda i: f"{MASK}.convs.{i - 1}.conv", "conv"),
    (r"mask_head/conv(\d+)/norm", lambda i: f"{MASK}.convs.{i - 1}.norm", None),
    (r"mask_head/deconv", lambda: f"{MASK}.upsample", "transposed"),
    (r"mask_head/logits", lambda: f"{MASK}.conv_logits", "conv"),
    (r"track_head/fc1", lambda: "track_head.embed_head.fcs.0", "roi"),
    (r"track_head/fc2", lambda: "track_head.embed_head.fcs.1", "linear"),
    # Our own layers, which no published file has.
    (r"track_head/conv/conv", lambda: "track_head.embed_head.conv", "conv"),
    (r"track_head/fc", lambda: "track_head.embed_head.fc", "linear"),
)
LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}


class Entry(NamedTuple):
    """A parameter in mmdet's files. layout: None for a vector, which has the same layout in both."""

    name: str
    layout: str | None


def table(variables: Mapping[str, Any]) -> dict[str, Entry]:
    """Return {our name (params/fpn/…): `Entry`} for all variables of a network (arrays or shapes)."""
    paths = flatten_dict(variables, sep="/")
    return {path: _entry(path, paths) for path in paths}


def _entry(path: str, paths: Mapping[str, Any]) -> Entry:
    module, leaf = path.partition("/")[2].replace("mask_head/logits_", "mask_head/logits/").rsplit("/", 1)
    for pattern, name, layout in MODULES:
        if found := re.fullmatch(pattern, module):
            # Group norm has no fixed statistics.
            norm = "bn" if f"batch_stats/{module}/mean" in paths else "gn"
            theirs = name(*map(int, found.groups())).replace("norm", norm)
            return Entry(f"{theirs}.{LEAVES[leaf]}", layout if leaf == "kernel" else None)
    raise KeyError(path)


def to_torch(x: np.ndarray, layout: str | None) -> np.ndarray:
    """Convert our array to PyTorch's layout."""
    if layout == "conv":
        x = x[None, None] if x.ndim == 2 else x
        return x.transpose(3, 2, 0, 1)
    if layout == "transposed":
        return x.transpose(2, 3, 0, 1)
    if layout == "linear":
        return x.T
    if layout == "roi":  # our inputs are ordered (row, column, channel), PyTorch's (channel, row, column)
        x = x.reshape(BINS, BINS, -1, x.shape[-1])
        return x.transpose(3, 2, 0, 1).reshape(x.shape[-1], -1)
    return x


def from_torch(x: np.ndarray, layout: str | None, shape: Sequence[int]) -> np.ndarray:
    """Convert PyTorch's array to our layout and `shape`, the inverse of `to_torch`."""
    if layout == "conv":
        return x.transpose(2, 3, 1, 0).reshape(shape)
    if layout == "transposed":
        return x.transpose(2, 3, 0, 1)
    if layout == "linear":
        return x.T
    if layout == "roi":
        return x.reshape(len(x), -1, BINS, BINS).transpose(2, 3, 1, 0).reshape(shape)
    return x


def torch_shape(shape: Sequence[int], layout: str | None) -> tuple[int, ...]:
    """Return the shape in PyTorch's layout of an array with our `shape`."""
    x = jax.ShapeDtypeStruct(tuple(shape), "float32")
    return jax.eval_shape(partial(to_torch, layout=layout), x).shape
