"""Deterministic weights for MaskTrack R-CNN R50-FPN, numpy only.

Every tensor is a function of (name, shape, salt) alone, where `name` is the mmtracking state_dict
name (see names_shapes.json).  make_state_dict({name: shape}, salt=0) -> {name: np.ndarray}.

Rules (first matching regex of RULES wins), rng = np.random.default_rng(crc32(f"{name}|{salt}")):
  *.num_batches_tracked                   int64 0
  *.running_mean                          N(0, 0.05)
  *.running_var                           U(0.5, 1.5)
  BN weight                               U(0.5, 1.0); U(0.2, 0.4) for bn3 (last BN of a bottleneck)
  BN bias                                 N(0, 0.05)
  conv / linear weight                    gain * N(0,1) / sqrt(fan_in); rows are mean-centred over fan_in
                                          where `centre` is set (keeps outputs input-dependent)
  conv / linear bias                      N(0, 0.01) (+ constants in BIAS_ADD)
All draws are float64 standard_normal / random, computed in float64, cast to float32 at the end.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

R2 = 2.0**0.5
# (regex, gain, centre)
RULES = [
    (r"backbone\.conv1\.weight$", R2, False),
    (r"backbone\..*conv\d\.weight$", 2.2, True),
    (r"backbone\..*downsample\.0\.weight$", 2.2, True),
    (r"neck\.lateral_convs\.", 0.25, True),
    (r"neck\.fpn_convs\.0\.", 0.6, True),
    (r"neck\.fpn_convs\.1\.", 0.8, True),
    (r"neck\.fpn_convs\.2\.", 1.1, True),
    (r"neck\.fpn_convs\.3\.", 1.6, True),
    (r"rpn_head\.rpn_conv\.", R2, True),
    (r"rpn_head\.rpn_cls\.", 1.5, True),
    (r"rpn_head\.rpn_reg\.", 0.35, True),
    (r"bbox_head\.shared_fcs\.", R2, True),
    (r"bbox_head\.fc_cls\.", 4.5, True),
    (r"bbox_head\.fc_reg\.", 1.0, True),
    (r"mask_head\.convs\.", R2, True),
    (r"mask_head\.upsample\.", R2, True),
    (r"mask_head\.conv_logits\.", 2.5, True),
    (r"embed_head\.fcs\.0\.", R2, True),
    (r"embed_head\.fcs\.1\.", 0.35, True),
]
# background logit offset so that only some proposals pass the score threshold (index -1 = background)
BG_BIAS = 11.7


def tensor(name: str, shape: Sequence[int], salt: int = 0) -> np.ndarray:
    shape = tuple(int(s) for s in shape)
    rng = np.random.default_rng(zlib.crc32(f"{name}|{salt}".encode()))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_mean":
        return (0.05 * rng.standard_normal(shape)).astype(np.float32)
    if leaf == "running_var":
        return (0.5 + rng.random(shape)).astype(np.float32)
    is_bn = len(shape) == 1 and re.search(r"(\.bn\d|downsample\.1)\.(weight|bias)$", name)
    if is_bn:
        if leaf == "bias":
            return (0.05 * rng.standard_normal(shape)).astype(np.float32)
        lo, hi = (0.2, 0.4) if ".bn3." in name else (0.5, 1.0)
        return (lo + (hi - lo) * rng.random(shape)).astype(np.float32)
    if leaf == "bias":
        b = 0.01 * rng.standard_normal(shape)
        if name.endswith("bbox_head.fc_cls.bias"):
            b[-1] += BG_BIAS
        return b.astype(np.float32)
    assert leaf == "weight" and len(shape) in (2, 4), (name, shape)
    w = rng.standard_normal(shape)
    if ".upsample." in name:  # ConvTranspose2d (in, out, kh, kw), stride == kernel
        axes, fan_in = (0,), shape[0]
    else:
        axes, fan_in = tuple(range(1, len(shape))), int(np.prod(shape[1:]))
    for pat, gain, centre in RULES:
        if re.search(pat, name):
            if centre:
                w = w - w.mean(axis=axes, keepdims=True)
            return (w * (gain / np.sqrt(fan_in))).astype(np.float32)
    raise KeyError(name)


def make_state_dict(
    names_shapes: dict[str, Sequence[int]] | Sequence[Sequence[Any]], salt: int = 0
) -> dict[str, np.ndarray]:
    items = names_shapes.items() if isinstance(names_shapes, dict) else [(e[0], e[1]) for e in names_shapes]
    return {n: tensor(n, s, salt) for n, s in items}
