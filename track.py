"""Segment and track the objects of a video.

python track.py [--checkpoint DIR] --input VIDEO_OR_FRAME_FOLDER --output DIR
python track.py [--checkpoint DIR] --input FOLDER_OF_VIDEOS_OR_FRAME_FOLDERS --output DIR
python track.py [--checkpoint DIR] --input CAMERA_NUMBER_OR_URL_OR_- --output DIR [--drop_frames]

DIR/partial holds the results so far. After an interruption the same command resumes, see docs/videos.md.

Flags such as --config.inference.association.assignment=hungarian set keys of config.inference, see
docs/tracking.md. --config.model.dtype=bfloat16 sets the floating-point type of computations (float64 needs
JAX_ENABLE_X64=1). All other values come from the checkpoint.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from absl import flags

from masktrack_jax.config.inference import InferenceOptions
from masktrack_jax.runtime import cli, copies, remote
from masktrack_jax.runtime.errors import printable
from masktrack_jax.runtime.memory import check_address_space

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "checkpoint", None, "Folder of a checkpoint; by default a small network for generated shapes only."
)
flags.DEFINE_string(
    "input",
    None,
    "A video file; a folder with one image per frame; a folder of these; a named pipe; a camera's number; a "
    "URL; or - for standard input. What exists as a file is that file, whatever its name.",
    required=True,
)
flags.DEFINE_string("output", None, "Folder for overlay.mp4, results.json and frames.jsonl.", required=True)
flags.DEFINE_float(
    "score_threshold",
    None,
    "Drop detections with this score or less; by default as in the checkpoint.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_integer(
    "max_detections",
    None,
    "Most detections of a frame; by default as in the checkpoint.",
    lower_bound=1,
)
flags.DEFINE_float(
    "draw_threshold", 0.3, "Do not draw detections with a lower score; the files contain them."
)
flags.DEFINE_bool("drop_frames", False, "Process only the latest frame of a live source, skip the others.")
flags.DEFINE_float(
    "timeout", 30, "Seconds to wait for a source or a disk that gives no frame.", lower_bound=0.1
)
DEFAULTS = {"inference": asdict(InferenceOptions()), "model": {"dtype": "float32"}}
CHANGES = cli.run(cli.define_config, DEFAULTS, "Values that replace the checkpoint's.")


def main(_: Sequence[str]) -> None:
    """Load the checkpoint, track the video and print where the results are."""
    check_address_space()
    # Not at the top, so that --help and errors in flags do not load JAX.
    import jax

    from masktrack_jax.checkpoints.metadata import fingerprint, read_metadata
    from masktrack_jax.inference.clips import track_clips
    from masktrack_jax.inference.load import PRETRAINED, load_segmenter
    from masktrack_jax.inference.track_video import track_video
    from masktrack_jax.runtime.processes import devices_text

    asked = {"score_threshold": FLAGS.score_threshold, "max_detections": FLAGS.max_detections}
    detections = {name: value for name, value in asked.items() if value is not None}
    if not FLAGS.checkpoint:
        print(f"no --checkpoint given: {PRETRAINED} finds circles, squares, triangles and stars")
    checkpoint, changes = FLAGS.checkpoint or PRETRAINED, CHANGES()
    output = remote.work(FLAGS.output)
    source = (
        copies.fetched_tree(copies.local(FLAGS.input), "input") if remote.is_url(FLAGS.input) else FLAGS.input
    )
    segmenter = load_segmenter(checkpoint, detections, changes)
    device = {"platform": jax.default_backend(), "float64": jax.config.jax_enable_x64}
    made_of = {"files": fingerprint(checkpoint), "detections": detections, "changes": changes}
    network = {"checkpoint": made_of, "device": device}
    dtype = changes.get("model.dtype", read_metadata(checkpoint).config.model.dtype)
    print(f"{devices_text(jax.devices()[:1])}, {dtype}")

    def track(source: str | Path, output: str | Path) -> None:
        try:
            summary = track_video(
                segmenter,
                source,
                output,
                draw_threshold=FLAGS.draw_threshold,
                drop_frames=FLAGS.drop_frames,
                limit=FLAGS.timeout,
                network=network,
            )
        except SystemExit as stopped:  # by a signal: nothing is left to do, and JAX takes a while to end
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(int(stopped.code or 0))
        remote.send(output)
        print(printable(f"{output}: overlay.mp4, results.json and frames.jsonl of {summary}"))

    run = {**network, "draw_threshold": FLAGS.draw_threshold}
    if not track_clips(track, str(source), str(output), run, FLAGS.timeout):
        track(source, output)
    remote.forget(output)


if __name__ == "__main__":
    cli.launch(main)
