"""Measures the memory of `track.py` against the number of frames.

    python -m benchmarks.memory --frames 100 1000 5000 --output runs/memory [--plot docs/memory.svg]

Tracks 720p videos of the given lengths with the packaged network. The videos show generated shapes, enlarged,
that move back and forth, 40 frames each way. Twice a second, and at the end, samples the resident memory of
the process and the number of lines in `frames.jsonl`. Prints a table, and then a JSON line. OUTPUT holds all
samples (`memory.json`) and the videos, which later runs reuse.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2

from benchmarks.common import load_average, rounded
from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.vis import read_vis
from masktrack_jax.evaluation.diagnosis.plots import curves
from masktrack_jax.video.files import VideoWriter

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 720, 1280
FRAMES_EACH_WAY = 40

Run = dict[str, Any]  # frames, seconds, peak_mib, tracks, and samples: [frames done, resident MiB]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 500, 1000, 2500, 5000])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path, help="an SVG file")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print("frames  seconds  peak MiB  tracks")
    runs = [measure(count, arguments.output) for count in arguments.frames]
    if arguments.plot:
        arguments.plot.write_text(plot(runs))
    about = {"what": "memory", "load": load_average()}
    (arguments.output / "memory.json").write_text(json.dumps(rounded({**about, "runs": runs})))
    for run in runs:
        del run["samples"]
    print(json.dumps(rounded({**about, "runs": runs})))


def measure(count: int, folder: Path) -> Run:
    """Track a video of `count` frames, and sample the memory."""
    output = folder / str(count)
    video = output.with_suffix(".mp4")
    if not video.exists():
        write_video(video, count)
    command = [sys.executable, str(ROOT / "track.py"), "--input", str(video), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with open(f"{output}.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    samples = list(sampled(process, output))
    if process.returncode:
        raise SystemExit(f"{output}.log: the run failed")
    row = {
        "frames": len((output / "frames.jsonl").read_text().splitlines()),
        "seconds": time.perf_counter() - started,
        "peak_mib": max(mib for _, mib in samples),
        "tracks": len(json.loads((output / "results.json").read_text())),
        "samples": samples,
    }
    print(
        f"{row['frames']:6d}  {row['seconds']:7.0f}  {row['peak_mib']:8.1f}  {row['tracks']:6d}", flush=True
    )
    return row


def write_video(path: Path, count: int) -> None:
    """Write a 720p mp4 of 2 to 4 shapes that move for 40 frames, and back again."""
    options = GeneratorOptions(
        videos=1, frames=FRAMES_EACH_WAY, height=96, width=160, seed=3, leave=0.5, enter=0.5
    )
    with tempfile.TemporaryDirectory() as folder:
        dataset = read_vis(generate(Path(folder) / "data", options))
        small = [dataset.read_frame(dataset.videos[0], frame) for frame in range(FRAMES_EACH_WAY)]
    frames = [cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for frame in small]
    with VideoWriter(path, 25, HEIGHT, WIDTH) as writer:
        for index in range(count):
            place = index % (2 * FRAMES_EACH_WAY)
            writer.write(frames[min(place, 2 * FRAMES_EACH_WAY - 1 - place)])


def sampled(process: subprocess.Popen, output: Path) -> Iterator[list[float]]:
    """Yield [lines of frames.jsonl, resident MiB] until the process ends."""
    lines, size = 0, 0
    path = output / "partial" / "frames.jsonl"
    while True:
        mib = resident(process.pid)
        if path.exists():
            with open(path, "rb") as file:
                file.seek(size)
                new = file.read()
            lines, size = lines + new.count(b"\n"), size + len(new)
        if process.poll() is not None:
            return
        if mib:
            yield [lines, mib]
        time.sleep(0.5)


def resident(pid: int) -> float | None:
    """Return the resident memory of a process in MiB, or None if it has ended."""
    try:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith("VmRSS")), None)


def plot(runs: Sequence[Run]) -> str:
    """Plot one line per run as SVG: resident memory over the frames done."""
    series = {f"{run['frames']} frames, peak {run['peak_mib']:.0f}": run["samples"] for run in runs}
    longest, highest = max(run["frames"] for run in runs), max(run["peak_mib"] for run in runs)
    ends = longest, -(-highest // 250) * 250
    return curves(series, "frames done", "resident MiB", ends, "Memory of track.py against the frames done")


if __name__ == "__main__":
    main()
