"""Times the scoring of a results file: processor seconds per stage, peak memory, masks per second.

    python -m benchmarks.evaluation                  # 60 videos, a few seconds
    python -m benchmarks.evaluation --videos 300     # 30 frames of 720p, 40 predictions: 200 MB of json

The labels are generated ellipses that move. The predictions are a few frames late, of another size, rough
along the outline and partly of a wrong category, so no two masks are equal. Both are written as json, then
read and scored in a new process. The last line printed is json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle_library

from masktrack_jax.data.json_files import read_results
from masktrack_jax.evaluation.identity import identity_metrics
from masktrack_jax.evaluation.overlaps import compute_overlaps
from masktrack_jax.evaluation.results import read_ground_truth
from masktrack_jax.evaluation.vis_ap import average_precision

HEIGHT, WIDTH, CATEGORIES, OBJECTS = 720, 1280, 40, 4


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--predictions", type=int, default=40)
    parser.add_argument("--folder", help="keep gt.json and results.json here, and reuse them if they exist")
    parser.add_argument("--score-only", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.score_only:
        print(json.dumps(score(flags.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.folder or temporary
        if not os.path.exists(os.path.join(folder, "results.json")):
            generate(folder, flags.videos, flags.frames, flags.predictions)
        command = [sys.executable, os.path.abspath(__file__), "--score-only", "--folder", folder]
        subprocess.run(command, check=True)


def score(folder: str | Path) -> dict[str, Any]:
    """Read and score the files, and time each stage."""
    paths = [os.path.join(folder, name) for name in ("gt.json", "results.json")]
    times = [time.process_time()]
    ground_truth, results = read_ground_truth(paths[0]), read_results(paths[1])
    times.append(time.process_time())
    overlaps = compute_overlaps(ground_truth, results, progress=True)
    times.append(time.process_time())
    metrics = average_precision(overlaps)
    times.append(time.process_time())
    identity = identity_metrics(overlaps)
    times.append(time.process_time())
    read, overlap, ap, identity_seconds = np.diff(times).tolist()
    masks = sum(int((pair.predicted.areas >= 0).sum()) for pair in overlaps.pairs)
    return {
        "videos": len(ground_truth["videos"]),
        "predicted_masks": masks,
        "json_mb": round(sum(os.path.getsize(path) for path in paths) / 1e6, 1),
        "read_s": round(read, 2),
        "overlaps_s": round(overlap, 2),
        "ap_s": round(ap, 2),
        "identity_s": round(identity_seconds, 2),
        "ap_end_to_end_s": round(read + overlap + ap, 2),
        "masks_per_s": round(masks / (read + overlap + ap)),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "AP": metrics.stats["AP"],
        "HOTA": identity["pooled"]["HOTA"],
    }


def generate(folder: str | Path, videos: int, frames: int, predictions: int) -> None:
    """Write gt.json and results.json."""
    rng = np.random.default_rng(0)
    ground_truth: dict[str, list[dict[str, Any]]] = {
        "videos": [{"id": v + 1, "height": HEIGHT, "width": WIDTH, "length": frames} for v in range(videos)],
        "categories": [{"id": c + 1, "name": f"category {c + 1}"} for c in range(CATEGORIES)],
        "annotations": [],
    }
    results: list[dict[str, Any]] = []
    for video in range(1, videos + 1):
        present = rng.integers(1, CATEGORIES + 1, 2)
        objects = [(int(rng.choice(present)), random_object(rng, frames)) for _ in range(OBJECTS)]
        for category, (centres, radii) in objects:
            rles = draw(rng, centres, radii)
            ground_truth["annotations"].append(
                {
                    "id": len(ground_truth["annotations"]) + 1,
                    "video_id": video,
                    "category_id": category,
                    "iscrowd": 0,
                    "areas": rle_library.area(rles).tolist(),
                    "segmentations": rles,
                }
            )
        for _ in range(predictions):
            category, (centres, radii) = objects[rng.integers(OBJECTS)]
            late = np.roll(centres, int(rng.integers(0, 6)), axis=0)
            results.append(
                {
                    "video_id": video,
                    "score": float(rng.random()),
                    "category_id": category if rng.random() < 0.6 else int(rng.integers(1, CATEGORIES + 1)),
                    "segmentations": draw(rng, late, radii * rng.uniform(0.85, 1.15, 2)),
                }
            )
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "gt.json"), "w") as file:
        json.dump(ground_truth, file)
    with open(os.path.join(folder, "results.json"), "w") as file:
        json.dump(results, file)


def random_object(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (T, 2) and half axes (2,), x before y, of an ellipse that moves a few pixels a frame."""
    start, speed = rng.uniform([200, 200], [WIDTH - 200, HEIGHT - 200]), rng.uniform(-6, 6, 2)
    return start + speed * np.arange(frames)[:, None], rng.uniform(45, 115) * np.array([1.4, 1.0])


def draw(rng: np.random.Generator, centres: np.ndarray, radii: np.ndarray) -> list[dict[str, Any]]:
    """Return the RLEs of an ellipse with a random rough outline in every frame."""
    rles = []
    for x, y in centres:
        columns = np.arange(max(int(x - radii[0]), 0), min(int(x + radii[0]), WIDTH))
        half = radii[1] * np.sqrt(np.maximum(1 - ((columns - x) / radii[0]) ** 2, 0))
        ends = y + np.stack([-half, half], -1) + 1.5 * rng.standard_normal((len(columns), 2))
        ends = np.clip(np.sort(np.rint(ends).astype(int)), 0, HEIGHT)
        filled = ends[:, 0] < ends[:, 1]  # an encoder writes no empty run
        ends = ends[filled] + HEIGHT * columns[filled, None]
        runs = np.diff(ends.ravel(), prepend=0, append=HEIGHT * WIDTH)
        size = [HEIGHT, WIDTH]
        rle = rle_library.frPyObjects({"size": size, "counts": runs.tolist()}, *size)
        rles.append({"size": size, "counts": rle["counts"].decode()})
    return rles


if __name__ == "__main__":
    main()
