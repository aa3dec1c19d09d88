"""The recorded cases of the evaluators, and small problems."""

import json

import numpy as np
from pycocotools import mask as rle_library

from tests.helpers.configs import ROOT

CASES = ROOT / "tests" / "cases" / "evaluation"


def load_case(case, *names):
    """The contents of a case's JSON files with these names, by default ground truth and results."""
    return [json.loads((CASES / f"{case}_{name}.json").read_text()) for name in names or ("gt", "pred")]


def rectangle(x, y, width, height, size=(40, 40)):
    """The RLE of a rectangle."""
    mask = np.zeros(size, np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    rle = rle_library.encode(mask)
    return {"size": list(size), "counts": rle["counts"].decode()}


def track(masks, score=0.9, category_id=1, video_id=1):
    """A predicted track."""
    return {"video_id": video_id, "category_id": category_id, "score": score, "segmentations": masks}


def one_video(labels, categories=1, **extra):
    """Ground truth of one video; `labels` is a list of the masks of each label, one at least in the first."""
    height, width = next(mask["size"] for mask in labels[0] if mask)
    annotations = [
        {"id": i, "video_id": 1, "category_id": 1, "iscrowd": 0, "segmentations": masks} | extra
        for i, masks in enumerate(labels)
    ]
    return {
        "videos": [{"id": 1, "height": height, "width": width, "length": len(labels[0])}],
        "categories": [{"id": c + 1, "name": f"c{c + 1}"} for c in range(categories)],
        "annotations": annotations,
    }
