"""Rules that translate each source's parameter names to mmdet's."""

from __future__ import annotations

import re
from collections.abc import Callable, Container

BOX, MASK = "roi_head.bbox_head", "roi_head.mask_head"  # in mmdet
Rules = tuple[tuple[str, Callable[..., str]], ...]
D2 = r"backbone\.bottom_up\."

# Prefix of a name in the source, and in mmdet. The first rule that matches applies.
OPENMMLAB: Rules = (
    (r"detector\.", lambda: ""),
    (r"bbox_head\.", lambda: f"{BOX}."),
    (r"mask_head\.", lambda: f"{MASK}."),
    (r"track_head\.fcs\.", lambda: "track_head.embed_head.fcs."),
)
TORCHVISION: Rules = (
    (r"(?:backbone\.body\.)?(conv1|bn1|layer\d)\.", lambda part: f"backbone.{part}."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?", lambda i: f"neck.lateral_convs.{i}.conv."),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?", lambda i: f"neck.fpn_convs.{i}.conv."),
    (r"rpn\.head\.conv\.(?:0\.0\.)?", lambda: "rpn_head.rpn_conv."),
    (r"rpn\.head\.cls_logits\.", lambda: "rpn_head.rpn_cls."),
    (r"rpn\.head\.bbox_pred\.", lambda: "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fc([67])\.", lambda i: f"{BOX}.shared_fcs.{int(i) - 6}."),
    (r"roi_heads\.box_predictor\.cls_score\.", lambda: f"{BOX}.fc_cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", lambda: f"{BOX}.fc_reg."),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.", lambda i: f"{MASK}.convs.{int(i) - 1}.conv."),
    (r"roi_heads\.mask_head\.(\d)\.0\.", lambda i: f"{MASK}.convs.{i}.conv."),
    (r"roi_heads\.mask_predictor\.conv5_mask\.", lambda: f"{MASK}.upsample."),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", lambda: f"{MASK}.conv_logits."),
)
DETECTRON2: Rules = (
    (D2 + r"stem\.conv1\.norm\.", lambda: "backbone.bn1."),
    (D2 + r"stem\.conv1\.", lambda: "backbone.conv1."),
    (D2 + r"res(\d)\.(\d+)\.conv(\d)\.norm\.", lambda s, b, c: f"backbone.layer{int(s) - 1}.{b}.bn{c}."),
    (D2 + r"res(\d)\.(\d+)\.shortcut\.norm\.", lambda s, b: f"backbone.layer{int(s) - 1}.{b}.downsample.1."),
    (D2 + r"res(\d)\.(\d+)\.shortcut\.", lambda s, b: f"backbone.layer{int(s) - 1}.{b}.downsample.0."),
    (D2 + r"res(\d)\.", lambda s: f"backbone.layer{int(s) - 1}."),
    (r"backbone\.fpn_lateral(\d)\.", lambda i: f"neck.lateral_convs.{int(i) - 2}.conv."),
    (r"backbone\.fpn_output(\d)\.", lambda i: f"neck.fpn_convs.{int(i) - 2}.conv."),
    (r"proposal_generator\.rpn_head\.conv\.", lambda: "rpn_head.rpn_conv."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", lambda: "rpn_head.rpn_cls."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", lambda: "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fc(\d)\.", lambda i: f"{BOX}.shared_fcs.{int(i) - 1}."),
    (r"roi_heads\.box_predictor\.cls_score\.", lambda: f"{BOX}.fc_cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", lambda: f"{BOX}.fc_reg."),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.", lambda i: f"{MASK}.convs.{int(i) - 1}.conv."),
    (r"roi_heads\.mask_head\.deconv\.", lambda: f"{MASK}.upsample."),
    (r"roi_heads\.mask_head\.predictor\.", lambda: f"{MASK}.conv_logits."),
)
RULES = {
    "mmtracking": OPENMMLAB,
    "original": OPENMMLAB,
    "mmdet": OPENMMLAB,
    "torchvision": TORCHVISION,
    "detectron2": DETECTRON2,
    "detectron2-pytorch": DETECTRON2,
}
SOURCES = tuple(RULES)


def mmdet_name(name: str, source: str) -> str:
    """Return mmdet's name of a tensor, or the same name if no rule of the source matches."""
    for pattern, make in RULES[source]:
        if found := re.match(pattern, name):
            return make(*found.groups()) + name[found.end() :]
    return name


def guess_source(names: Container[str]) -> str | None:
    """Return the source that uses these names (detectron2 for both of its styles), or None."""
    if "detector.backbone.conv1.weight" in names:
        return "mmtracking"
    if "backbone.bottom_up.stem.conv1.weight" in names:
        return "detectron2"
    if "backbone.body.conv1.weight" in names or "conv1.weight" in names:
        return "torchvision"
    if "backbone.conv1.weight" in names:
        return "original" if "track_head.fcs.0.weight" in names else "mmdet"
    return None
