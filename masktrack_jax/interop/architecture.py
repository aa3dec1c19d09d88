"""The config of a network, inferred from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from masktrack_jax.config.base import base_config
from masktrack_jax.interop.files import Tensors
from masktrack_jax.interop.source_names import BOX, MASK
from masktrack_jax.models.resnet import DEPTHS
from masktrack_jax.runtime.errors import UserError

# Key of `config.model`: name in mmdet of the tensor whose first axis has this length.
WIDTHS = {
    "backbone.width": "backbone.conv1.weight",
    "fpn.channels": "neck.lateral_convs.0.conv.weight",
    "rpn_head.channels": "rpn_head.rpn_conv.weight",
    "box_head.features": f"{BOX}.shared_fcs.0.weight",
    "mask_head.channels": f"{MASK}.upsample.weight",
    "track_head.features": "track_head.embed_head.fcs.0.weight",
}


def config_of(path: Path, tensors: Tensors) -> ConfigDict:
    """Return `base_config` with the depths and widths of `tensors`, which have mmdet's names.

    Values that cannot be inferred keep their defaults. `path` is used in error messages.
    """
    config = base_config()
    config.model.backbone.depth = _depth(path, tensors)
    for key, name in WIDTHS.items():
        if name in tensors and tensors[name].ndim:
            section, key = key.split(".")
            config.model[section][key] = tensors[name].shape[0]
    if f"{MASK}.upsample.weight" in tensors:
        config.model.mask_head.convs = _count(tensors, re.escape(MASK) + r"\.convs\.\d+\.conv\.weight")
    if f"{BOX}.shared_fcs.0.weight" in tensors:
        config.model.box_head.convs = _count(tensors, re.escape(BOX) + r"\.shared_convs\.\d+\.conv\.weight")
    return config


def _depth(path: Path, tensors: Tensors) -> int:
    """Return the ResNet's number of layers."""
    blocks = tuple(_count(tensors, rf"backbone\.layer{stage}\.\d+\.conv1\.weight") for stage in (1, 2, 3, 4))
    bottleneck = "backbone.layer1.0.conv3.weight" in tensors
    for depth, form in DEPTHS.items():
        if form == (blocks, bottleneck):
            return depth
    kind = "bottleneck" if bottleneck else "basic"
    known = ", ".join(map(str, sorted(DEPTHS)))
    raise UserError(f"{path}: its ResNet has {blocks} {kind} blocks; one of depth {known} can be read")


def _count(tensors: Iterable[str], pattern: str) -> int:
    """Return how many names match."""
    return sum(bool(re.fullmatch(pattern, name)) for name in tensors)
