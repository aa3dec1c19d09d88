"""Files that a run must not touch, and files that changed since they were written: one line each."""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.inference import progress
from masktrack_jax.inference.track_video import track_video
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.lock import NAME
from tests.helpers.moving_objects import moving_objects, segmenter_of
from tests.helpers.track_known import FRAMES


def test_a_folder_that_no_run_made_is_refused(images: Path, tmp_path: Path) -> None:
    """With any files that are called `partial`, or like those of a run; an empty one is taken."""
    segmenter, partial = segmenter_of(moving_objects(FRAMES)), tmp_path / "out" / "partial"
    partial.mkdir(parents=True)
    for name in ("notes.txt", "frames.jsonl", "state.npz"):
        (partial / name).write_text("mine")
        with pytest.raises(UserError, match=rf"out/partial: was not made by a run, but holds {name}; move"):
            track_video(segmenter, images, tmp_path / "out")
        assert (partial / name).read_text() == "mine" and list(partial.iterdir()) == [partial / name]
        (partial / name).unlink()
    assert track_video(segmenter, images, tmp_path / "out").frames == FRAMES


@pytest.mark.parametrize("name", ["frames.jsonl", "overlay-000000000.mp4", ".results.json.partial-1", NAME])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_not_followed(
    images: Path, interrupted: Path, tmp_path: Path, name: str, link: Callable[[Path, Path], None]
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (interrupted / "partial" / name).unlink(missing_ok=True)
    link(precious, interrupted / "partial" / name)
    with pytest.raises(UserError, match=rf"{name}: is a link or no file; move or remove it"):
        track_video(segmenter_of(moving_objects(FRAMES)), images, interrupted)
    assert precious.read_text() == "mine"


def test_a_linked_folder_and_folders_with_names_of_results(images: Path, tmp_path: Path) -> None:
    segmenter, other = segmenter_of(moving_objects(FRAMES)), tmp_path / "other"
    for path in (other, tmp_path / "one", tmp_path / "two" / "results.json"):
        path.mkdir(parents=True)
    (tmp_path / "one" / "partial").symlink_to(other)
    for output, words in (("one", "one/partial: is a link"), ("two", "two/results.json: is a folder")):
        with pytest.raises(UserError, match=words):
            track_video(segmenter, images, tmp_path / output)
    assert not list(other.iterdir())
    (tmp_path / "three").mkdir()
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "three" / "results.json").symlink_to(target)
    track_video(segmenter, images, tmp_path / "three")
    assert target.read_text() == "mine", "the link is replaced"


def test_a_flipped_bit_is_noticed(images: Path, interrupted: Path) -> None:
    """Of the saved state, and of the files that it describes; each refusal names the file and the cure."""
    segmenter = segmenter_of(moving_objects(FRAMES))
    for name in ("state.npz", "detections.jsonl", "frames.jsonl"):
        path = interrupted / "partial" / name
        content = path.read_bytes()
        for place in np.linspace(0, len(content) - 1, 12).astype(int):
            path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
            with pytest.raises(UserError, match=rf"{name}: .*changed since .* delete .* to start again"):
                track_video(segmenter, images, interrupted)
        path.write_bytes(content)
    assert track_video(segmenter, images, interrupted).before == 4


def test_replaced_pictures_are_noticed(images: Path, interrupted: Path, tmp_path: Path) -> None:
    """Of the same names and sizes, before or after the frame where the run resumes. A copy is resumed."""
    copy = tmp_path / "copy"
    shutil.copytree(images, copy)
    for number in (1, 20):
        path = copy / f"{number}.png"
        content = path.read_bytes()
        Image.fromarray(np.full((90, 150, 3), number + 50, np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))
        with pytest.raises(UserError, match="holds 4 frames of a run with other input"):
            track_video(segmenter_of(moving_objects(FRAMES)), copy, interrupted)
        path.write_bytes(content)
    assert track_video(segmenter_of(moving_objects(FRAMES)), copy, interrupted).before == 4


def test_a_disk_error_while_resuming_loses_nothing(
    images: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def kept() -> dict[str, bytes]:
        files = (interrupted / "partial").iterdir()
        return {path.name: path.read_bytes() for path in files if path.name != NAME}  # has the time

    before = kept()
    with monkeypatch.context() as patched:
        patched.setattr(progress, "StoredTracks", fails)
        with pytest.raises(UserError, match=r"cannot be written to \(Input/output error"):
            track_video(segmenter_of(moving_objects(FRAMES)), images, interrupted)
    assert before == kept()
    assert track_video(segmenter_of(moving_objects(FRAMES)), images, interrupted).before == 4


def test_a_part_of_another_overlay_is_named(images: Path, interrupted: Path) -> None:
    (part,) = (interrupted / "partial").glob("overlay-*.mp4")
    shutil.copy(part, part.with_name("overlay-000000002.mp4"))
    with pytest.raises(UserError, match=r"overlay-000000002\.mp4: is not of this run; move or remove it"):
        track_video(segmenter_of(moving_objects(FRAMES)), images, interrupted)


@pytest.mark.parametrize(
    "about",
    [
        *("[]", "[" * 100_000, "{}", '{"frames": "4", "sizes": [1, 2]}', '{"frames": 4, "sizes": 1}'),
        *('{"frames": 4, "sizes": [1, -2]}', '{"frames": 4, "sizes": [1, 2], "run": "x", "digests": {}}'),
    ],
)
def test_a_state_that_describes_no_run(images: Path, interrupted: Path, about: str) -> None:
    content = io.BytesIO()
    np.savez(content, about=about)
    digest = hashlib.sha256(content.getvalue()).digest()
    (interrupted / "partial" / "state.npz").write_bytes(content.getvalue() + digest)
    with pytest.raises(UserError, match=r"state\.npz: cannot be read \(.*\); delete .* to start again"):
        track_video(segmenter_of(moving_objects(FRAMES)), images, interrupted)
