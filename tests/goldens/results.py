"""Tracks from frames on disk against the authors' results files, `orig_results_A_*`."""

import json
import tempfile
from pathlib import Path

from PIL import Image

from masktrack_jax.inference.load import load_segmenter
from masktrack_jax.inference.track_video import track_video
from masktrack_jax.masks.rle import decode_masks

from .inference import SCORES
from .inputs import make_clip
from .network import DTYPE, checkpoint
from .recorded import Worst, arrays, document


def results_rows(size: str, setting: str) -> Worst:
    """Rows of one results file: categories, scores, frames and masks of its tracks."""
    name = f"orig_results_A_{size}_{setting}"
    wanted = document(name)
    recorded = arrays(f"orig_infer_A_{size}_{setting}")
    detections = {
        "score_threshold": float(recorded["score_thr"]),
        "max_detections": int(recorded["max_per_img"]),
    }
    clip = make_clip(*map(int, recorded["clip_args"]))["frames"]
    with tempfile.TemporaryDirectory() as folder:
        for t, frame in enumerate(clip):
            (Path(folder) / "frames").mkdir(exist_ok=True)
            Image.fromarray(frame).save(Path(folder) / "frames" / f"{t:05d}.png")
        segmenter = load_segmenter(checkpoint("orig"), detections, {"model.dtype": DTYPE})
        track_video(segmenter, Path(folder) / "frames", Path(folder) / "out")
        ours = json.loads((Path(folder) / "out" / "results.json").read_text())
    rows = Worst(name)
    rows.exact("number of tracks", len(ours), len(wanted))
    for mine, theirs in zip(ours, wanted):
        rows.exact("categories", mine["category_id"], theirs["category_id"])
        rows.add("scores", SCORES, abs(mine["score"] - theirs["score"]))
        absent = [[s is None for s in track["segmentations"]] for track in (mine, theirs)]
        rows.exact("frames", *absent)
        for a, b in zip(mine["segmentations"], theirs["segmentations"]):
            if a and b:
                a, b = decode_masks([a, b], *a["size"]).astype(bool)
                rows.add("1 − mask IoU", 0.005, 1 - (a & b).sum() / max((a | b).sum(), 1))
    return rows
