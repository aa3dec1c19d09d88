"""Tracks collected in a file equal those collected in memory, byte for byte in the results file."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from masktrack_jax.inference.tracks_on_disk import StoredTracks
from masktrack_jax.masks.rle import encode_masks
from masktrack_jax.tracking.tracks import LABELS, SCORES, TrackOptions, VideoTracks
from tests.helpers.tracking import result


@pytest.mark.parametrize("label", sorted(LABELS))
@pytest.mark.parametrize("score, fill_gaps", [(score, 0) for score in sorted(SCORES)] + [("mean", 3)])
def test_tracks_in_a_file_are_those_in_memory_to_the_byte(
    tmp_path: Path, label: str, score: str, fill_gaps: int
) -> None:
    """Also where the file is closed and opened again between two frames."""
    rng, options = np.random.default_rng(4), TrackOptions(label, score, fill_gaps)
    kept, path = VideoTracks(options), tmp_path / "detections.jsonl"
    for index in range(30):
        ids = rng.permutation(8)[: rng.integers(0, 4)] if index % 7 else np.zeros(0, int)
        corners = rng.uniform(0, 20, (len(ids), 2)).astype(np.float32)
        boxes = np.hstack([corners, corners + rng.uniform(2, 9, (len(ids), 2)).astype(np.float32)])
        rles = encode_masks((rng.random((len(ids), 30, 40)) < 0.1).astype(np.uint8))
        scores, probabilities = rng.random(len(ids), np.float32), rng.random((len(ids), 3), np.float32)
        frame = result(ids, rng.integers(0, 3, len(ids)), scores, rles, boxes, probabilities)
        kept.add(frame)
        with open(path, "a+b") as file:
            stored = StoredTracks(file, options, index)
            stored.add(frame)
            if index in (0, 29):
                text = io.StringIO()
                records = kept.finish(5, [10, 20, 30])
                assert stored.write(text, 5, [10, 20, 30]) == len(records)
                assert text.getvalue() == json.dumps(records)
    assert stored.frame_count == 30 and len(records) == 8
