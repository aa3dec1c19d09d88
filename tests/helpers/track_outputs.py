"""The output folder of `track.py`."""

from pathlib import Path

NAMES = ["frames.jsonl", "overlay.mp4", "results.json"]


def results_of(output: Path) -> dict[str, bytes]:
    """The bytes of the three files of a finished run."""
    assert sorted(path.name for path in output.iterdir()) == NAMES
    return {path.name: path.read_bytes() for path in output.iterdir()}
