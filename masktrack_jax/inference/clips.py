"""Track every clip of a folder in turn; an interrupted run over many clips resumes where it was."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from masktrack_jax.inference.progress import RESULTS
from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.files import whole
from masktrack_jax.video.clips import places_of_clips

NAME = ".finished-clips.json"


def track_clips(
    track: Callable[[Path, Path], None],
    source: str,
    output: str,
    run: Mapping[str, Any],
    limit: float,
) -> bool:
    """Call `track(clip, output folder)` for each clip in `source`; False if that is no folder of clips.

    A clip that raises a UserError is reported, and the others are tracked.

    Args:
      output: the folder of the output folders, see `video.clips.places_of_clips`.
      run: as for `Finished`. Clips that are finished are left out.
      limit: the longest time in seconds to wait for the disk.
    Raises:
      UserError: clips could not be tracked; all others are finished.
    """
    clips, failed = places_of_clips(source, output, limit), 0
    finished = Finished(output, run)
    for clip in clips.items():
        if clip in finished:
            print(printable(f"{clip[1]}: was finished by an earlier run"))
            continue
        try:
            track(*clip)
            finished.add(clip)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    if failed:
        raise UserError(f"{source}: {failed} of {len(clips)} clips could not be tracked, see above")
    if clips:
        finished.clear()
    return bool(clips)


class Finished:
    """The finished clips, in a file of the output folder that exists until all are finished.

    Args:
      output: the output folder of all clips.
      run: all values that the results depend on, as a dict for JSON. Clips of another run are not finished.
    """

    def __init__(self, output: str | Path, run: Mapping[str, Any]) -> None:
        self._path, self._run = Path(output) / NAME, json.dumps(run, sort_keys=True)
        try:
            known = json.loads(self._path.read_text()) if self._path.is_file() else {}
        except (OSError, ValueError, RecursionError):  # damaged: every clip is tracked again
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def __contains__(self, clip: tuple[Path, Path]) -> bool:
        """Whether the clip (its path, its output folder) is finished, and unchanged since."""
        _, place = clip
        there = all((place / name).is_file() for name in RESULTS)
        return there and self._known.get(str(place)) == self._digest(*clip)

    def add(self, clip: tuple[Path, Path]) -> None:
        """Note on disk that the clip (its path, its output folder) is finished."""
        self._known[str(clip[1])] = self._digest(*clip)
        with whole(self._path) as partial:
            partial.write_text(json.dumps(self._known))

    def clear(self) -> None:
        """Forget all clips: the next run tracks them again."""
        self._path.unlink(missing_ok=True)

    def _digest(self, path: Path, place: Path) -> str:
        """A digest of the run and of the names, sizes and times of a clip's files."""
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        states = [_state(file) for file in files]
        return hashlib.sha256(repr((self._run, str(place), states)).encode()).hexdigest()


def _state(file: Path) -> tuple[Any, ...]:
    """The name, size and time of a file; of a link to nothing, which is no frame, the name."""
    try:
        state = file.stat()
    except OSError:
        return (file.name,)
    return file.name, state.st_size, state.st_mtime_ns
