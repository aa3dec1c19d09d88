"""Randomly changed progress of a run: it is resumed to the same results, or refused with one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.inference.progress import Progress
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.tracks import TrackOptions
from masktrack_jax.video.parts import PartWriter
from tests.helpers.moving_objects import moving_objects, segmenter_of
from tests.helpers.mutations import cut_or_flipped

FILES = ("state.npz", "detections.jsonl", "frames.jsonl", "overlay-000000000.mp4", "overlay-000000002.mp4")


def progress(output: Path) -> Progress:
    return Progress(output, {"input": "a clip"}, TrackOptions())


def results(output: Path) -> dict[str, bytes]:
    """Resume a run that has all its frames, and return its results."""
    with progress(output) as resumed:
        assert resumed.frames == 4 and resumed.state is not None
        resumed.write_results([4, 9], 10)
        resumed.finish()
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that stopped before it wrote its results."""
    output = tmp_path_factory.mktemp("fuzz") / "out"
    segmenter, frames = (
        segmenter_of(moving_objects(4)),
        [np.full((90, 150, 3), i, np.uint8) for i in range(4)],
    )
    with pytest.raises(SystemExit), progress(output) as run:
        with PartWriter(run.folder, 10, 90, 150) as overlay:
            for number, result in enumerate(segmenter.stream(frames)):
                overlay.write(frames[number], number)
                run.add(result, {"frame": number})
                if number == 1:
                    overlay.cut()
        run.save(segmenter.state())
        raise SystemExit
    return output


@given(data=st.data(), name=st.sampled_from(FILES))
def test_progress(stopped: Path, data: st.DataObject, name: str) -> None:
    whole, changed = (stopped.with_name(name) for name in ("whole", "changed"))
    for output in (whole, changed):
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(stopped, output)
    path = changed / "partial" / name
    content = path.read_bytes()
    path.write_bytes(data.draw(cut_or_flipped(content)))
    same = path.read_bytes() == content
    try:
        assert results(changed) == results(whole) and same
    except UserError as error:
        assert not same and "\n" not in str(error) and str(error).startswith(f"{path}: ")
        assert str(error).endswith("start again")
