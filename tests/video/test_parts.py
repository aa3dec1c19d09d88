"""Parts joined into one video have the frames and times of the parts."""

from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest

from masktrack_jax.video.files import open_video
from masktrack_jax.video.parts import PartWriter, join_parts, parts_of
from tests.helpers.videos import quadrants


def test_joined_parts_keep_all_frames_and_times(tmp_path):
    """At a rate that mp4 does not store exactly."""
    times, sizes, fps = [0, 1, 2, 5, 6, 9, 40, 41], [4, 1, 3], 30000 / 1001
    with PartWriter(tmp_path, fps, 47, 65) as writer:
        for index, time in enumerate(times):
            if index in np.cumsum(sizes):
                writer.cut()
            writer.write(quadrants(47, 65, 4 * index), time)
    assert [time for time, _ in parts_of(tmp_path)] == [0, 6, 9]
    parts = [list(open_video(path).frames()) for _, path in parts_of(tmp_path)]
    assert list(map(len, parts)) == sizes
    join_parts(tmp_path, tmp_path / "whole.mp4", fps)
    whole = list(open_video(tmp_path / "whole.mp4").frames())
    assert len(whole) == 8 and all(map(np.array_equal, whole, chain(*parts)))
    with av.open(str(tmp_path / "whole.mp4")) as container:
        shown = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert shown == pytest.approx([time / fps for time in times], abs=1e-4)


def test_an_open_part_is_deleted_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), PartWriter(tmp_path, 10, 48, 64) as writer:
        for time in range(4):
            writer.write(quadrants(48, 64), time)
            if time == 1:
                writer.cut()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["overlay-000000000.mp4"]


def test_paths_of_results_are_no_protocols(tmp_path, monkeypatch):
    """FFmpeg writes to the folder of that name."""
    monkeypatch.chdir(tmp_path)
    for name in ("10:22", "concat:x", "http:", "pipe:1", "%d"):
        folder = Path(name)
        folder.mkdir()
        with PartWriter(folder, 10, 48, 64) as writer:
            writer.write(quadrants(48, 64), 0)
        join_parts(folder, folder / "overlay.mp4", 10)
        assert len(list(open_video(folder / "overlay.mp4").frames())) == 1


def test_other_files_are_no_parts(tmp_path):
    for name in ("overlay-x.mp4", "overlay-1.mp4", "overlay-.mp4", ".overlay-000000001.mp4.partial"):
        (tmp_path / name).touch()
    assert parts_of(tmp_path) == []
