"""What inference costs by the number of proposals, detections, frames, classes and pixels.

    python benchmarks/scale.py --config configs/demo.py --picture docs/scale.svg

One number changes at a time; the others are `USUAL`. Random weights and frames. A video's cost is that of
associating and encoding what was detected. Prints a table, draws a picture where asked, and last prints a
JSON line. Least processor time of all threads; the wall's clock is in the JSON line.
"""

import argparse
import json
import sys
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from common import clock, compiled, load_average, load_config, rounded
from scale_picture import draw

from masktrack_jax.inference.frames import FrameDetections
from masktrack_jax.inference.load import build_segmenter
from masktrack_jax.models.masktrack_rcnn import build_model

USUAL = {"proposals": 200, "detections": 10, "frames in a batch": 1, "classes": 40, "pixels": (192, 320)}
SWEEPS = {
    "proposals": (125, 250, 500, 1000),
    "detections": (1, 25, 50, 100),
    "frames in a batch": (1, 2, 4, 8),
    "frames in a video": (50, 100, 200, 400),
    "classes": (10, 40, 80, 160),
    "pixels": ((96, 160), (192, 320), (288, 480), (384, 640)),
}


def main():
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="an SVG file to draw to")
    arguments = parser.parse_args()
    sweeps = {}
    for name, values in SWEEPS.items():
        make = video if name == "frames in a video" else network
        calls = {value: make(arguments.config, **{name: value}) for value in values}
        sweeps[name] = {int(np.prod(value)): row for value, row in clock(calls, arguments.repeats).items()}
        show(name, sweeps[name])
    if arguments.picture:
        arguments.picture.write_text(draw(sweeps))
    about = {"config": arguments.config, "load": load_average(), "usual": USUAL}
    print(json.dumps(rounded({"what": "scale", **about, "sweeps": sweeps})))


def network(path, **changes):
    """A call that detects on noise; `changes` of `USUAL`."""
    chosen = USUAL | changes
    config = load_config(path)
    config.model.proposals.update({name: chosen["proposals"] for name in ("pre_nms", "post_nms")})
    # Above every threshold, and cut: so many and no others.
    config.model.detections.update({"score_threshold": 0.0, "max_detections": chosen["detections"]})
    model = build_model(config, chosen["classes"])
    variables = random_variables(path, chosen["classes"])
    shape = (chosen["frames in a batch"], *chosen["pixels"])
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    sizes = np.tile(np.array(chosen["pixels"], np.int32), (shape[0], 1))
    program, _ = compiled(partial(model.apply, method="detect"), variables, images, sizes)
    found = int(program(variables, images, sizes).valid.sum())
    if found != shape[0] * chosen["detections"]:
        sys.exit(f"error: {found} detections in {shape[0]} frames, not {chosen['detections']} in each")
    return partial(program, variables, images, sizes)


@cache
def random_variables(path, classes):
    """Variables as at the start of a training: neither proposals nor scores are all alike."""
    return build_model(load_config(path), classes).init_variables(jax.random.key(0))


def video(path, **changes):
    """A call that associates and encodes the detections of so many frames: objects that move a little."""
    length, count, classes = changes["frames in a video"], USUAL["detections"], USUAL["classes"]
    rng = np.random.default_rng(0)
    corners, looks = rng.uniform(0, 200, (count, 2)), rng.standard_normal((count, 256))
    labels = np.arange(count) % classes
    found = []
    for _ in range(length):
        corners = corners + rng.uniform(-1, 1, corners.shape)
        found.append(
            FrameDetections(
                USUAL["pixels"],
                np.concatenate([corners, corners + 60], -1).astype(np.float32),
                np.linspace(0.9, 0.5, count).astype(np.float32),
                labels,
                np.eye(classes, dtype=np.float32)[labels],
                (looks + 0.1 * rng.standard_normal(looks.shape)).astype(np.float32),
                masks=np.ones((count, 28, 28), np.float32),
            )
        )
    config = load_config(path)
    segmenter = build_segmenter(config, [(i + 1, str(i)) for i in range(classes)], {})
    return lambda: segmenter.finish(segmenter.associate(found)) and 0


def show(name, rows):
    """Print a sweep, and how its cost grows with its number."""
    print(f"\n{name:<20} processor ms   cost: number (both relative to the first)")
    first, least = next(iter(rows)), next(iter(rows.values()))["cpu_seconds"]
    for number, row in rows.items():
        cost = row["cpu_seconds"]
        print(f"{number:<20} {cost * 1e3:12.1f}   {cost / least:5.2f}: {number / first:.2f}")


if __name__ == "__main__":
    main()
