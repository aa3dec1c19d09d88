"""Write masktrack_jax/plan/typical_boxes.npz: what the network of set A proposes, in 16 bits.

python -m tests.goldens.typical
"""

import flax.linen as nn
import jax
import numpy as np

from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.plan.typical import FILE, FULL

from .inference import frames
from .network import network
from .recorded import arrays

TOP = 200  # candidates of a level
CLASSES = 3  # of each proposal


def main() -> None:
    """Run the network on the clip, and write its candidates and class logits."""
    recorded = arrays("infer_A_360x640")
    about, variables = network("mm")
    model = build_model(about.config, len(about.categories))
    found = [_frame(model, variables, images, sizes) for images, sizes, _ in frames(recorded)]
    boxes, logits, levels = (np.stack(x) for x in zip(*found))
    classes = np.stack([recorded[f"f{t}/cls_score"] for t in range(len(found))])
    classes = classes[..., :-1] - classes[..., -1:]  # as if the background had logit 0
    best = np.argsort(-classes, axis=-1)[..., :CLASSES]
    np.savez_compressed(
        FILE,
        boxes=np.round(boxes * FULL).astype(np.uint16),
        ranks=np.argsort(np.argsort(-logits, axis=-1, kind="stable"), axis=-1).astype(np.uint16),
        levels=levels[0].astype(np.uint8),
        classes=best.astype(np.uint8),
        class_logits=np.take_along_axis(classes, best, axis=-1).astype(np.float16),
        count=classes.shape[-1] + 1,
    )
    print(f"{FILE}: {FILE.stat().st_size} bytes, boxes {boxes.shape}")


def _frame(model, variables, images, sizes):
    outputs = nn.apply(lambda m: m.rpn_head(m.features(images, sizes)), model)
    logits, deltas = (np.asarray(x[0]) for x in jax.jit(outputs)(variables))
    anchors = model.anchors(*images.shape[1:3])
    usable = np.where(anchors.valid(sizes[0]), logits, -np.inf)
    rows = [
        places[np.argsort(-usable[places], kind="stable")[:TOP]]
        for level in range(int(anchors.levels.max()) + 1)
        for places in [np.flatnonzero(anchors.levels == level)]
    ]
    best = np.concatenate(rows)
    best = best[np.isfinite(usable[best])]
    boxes = box_ops.clip(box_ops.decode(anchors.boxes[best], deltas[best], (1.0,) * 4), sizes[0])
    height, width = sizes[0]
    fractions = np.asarray(boxes) / np.array([width, height, width, height], np.float32)
    return fractions, logits[best], anchors.levels[best]


if __name__ == "__main__":
    main()
