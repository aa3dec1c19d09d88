"""Measures the cost of inference by the number of proposals, detections, frames, classes and pixels.

    python -m benchmarks.scale --config configs/demo.py --picture docs/scale.svg

One number changes at a time; the others have the values of `USUAL`. Weights and frames are random. The cost
of a video covers associating its detections and encoding their masks. Prints a table with the minimum
processor time of all threads, draws a picture on request, and then prints a JSON line, which also has the
wall time.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import Times, Variables, clock, compiled, load_average, load_config, rounded
from benchmarks.scale_picture import draw
from masktrack_jax.inference.frames import FrameDetections
from masktrack_jax.inference.load import build_segmenter
from masktrack_jax.models.masktrack_rcnn import build_model

USUAL: dict[str, Any] = {
    "proposals": 200,
    "detections": 10,
    "frames in a batch": 1,
    "classes": 40,
    "pixels": (192, 320),
}
SWEEPS: dict[str, tuple[Any, ...]] = {
    "proposals": (125, 250, 500, 1000),
    "detections": (1, 25, 50, 100),
    "frames in a batch": (1, 2, 4, 8),
    "frames in a video": (50, 100, 200, 400),
    "classes": (10, 40, 80, 160),
    "pixels": ((96, 160), (192, 320), (288, 480), (384, 640)),
}


def main() -> None:
    """Run the benchmark."""
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


def network(path: str, **changes: int | tuple[int, int]) -> Callable[[], object]:
    """Return a call that detects on noise, with `changes` to `USUAL`."""
    chosen = USUAL | changes
    config = load_config(path)
    config.model.proposals.update({name: chosen["proposals"] for name in ("pre_nms", "post_nms")})
    # All scores pass the threshold, and the best `max_detections` are kept.
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
def random_variables(path: str, classes: int) -> Variables:
    """Return initial variables, with which proposals and scores vary."""
    return build_model(load_config(path), classes).init_variables(jax.random.key(0))


def video(path: str, **changes: int) -> Callable[[], object]:
    """Return a call that associates and encodes the detections of a video, whose objects move slightly."""
    length, count, classes = changes["frames in a video"], USUAL["detections"], USUAL["classes"]
    rng = np.random.default_rng(0)
    corners, embeddings = rng.uniform(0, 200, (count, 2)), rng.standard_normal((count, 256))
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
                (embeddings + 0.1 * rng.standard_normal(embeddings.shape)).astype(np.float32),
                masks=np.ones((count, 28, 28), np.float32),
            )
        )
    config = load_config(path)
    segmenter = build_segmenter(config, [(i + 1, str(i)) for i in range(classes)], {})
    return lambda: segmenter.finish(segmenter.associate(found)) and 0


def show(name: str, rows: dict[int, Times]) -> None:
    """Print a sweep and the growth of its cost with its number."""
    print(f"\n{name:<20} processor ms   cost: number (both relative to the first)")
    first, least = next(iter(rows)), next(iter(rows.values()))["cpu_seconds"]
    for number, row in rows.items():
        cost = row["cpu_seconds"]
        print(f"{number:<20} {cost * 1e3:12.1f}   {cost / least:5.2f}: {number / first:.2f}")


if __name__ == "__main__":
    main()
