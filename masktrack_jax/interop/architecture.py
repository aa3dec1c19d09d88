"""The config of the network that a file's tensors make, by their names and shapes."""

import re

from masktrack_jax.config.base import base_config
from masktrack_jax.interop.names import BOX, MASK
from masktrack_jax.models.resnet import DEPTHS
from masktrack_jax.runtime.errors import UserError

# Key of `config.model`, and the tensor (mmdet's name) whose first axis is as long.
WIDTHS = {
    "backbone.width": "backbone.conv1.weight",
    "fpn.channels": "neck.lateral_convs.0.conv.weight",
    "rpn_head.channels": "rpn_head.rpn_conv.weight",
    "box_head.features": f"{BOX}.shared_fcs.0.weight",
    "mask_head.channels": f"{MASK}.upsample.weight",
    "track_head.features": "track_head.embed_head.fcs.0.weight",
}


def config_of(path, tensors):
    """`base_config` with the depths and widths of `tensors` {mmdet's name: array} of the file at `path`.

    What the tensors do not tell stays as it is there.
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


def _depth(path, tensors):
    """The ResNet's number of layers."""
    blocks = tuple(_count(tensors, rf"backbone\.layer{stage}\.\d+\.conv1\.weight") for stage in (1, 2, 3, 4))
    bottleneck = "backbone.layer1.0.conv3.weight" in tensors
    for depth, known in DEPTHS.items():
        if known == (blocks, bottleneck):
            return depth
    kind = "bottleneck" if bottleneck else "basic"
    known = ", ".join(map(str, sorted(DEPTHS)))
    raise UserError(f"{path}: its ResNet has {blocks} {kind} blocks; one of depth {known} can be read")


def _count(tensors, pattern):
    return sum(bool(re.fullmatch(pattern, name)) for name in tensors)
