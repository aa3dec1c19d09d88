"""Read the tracks of a results file. Each value is checked for type and range once, for all commands."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby, islice
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from masktrack_jax.data.values import Id, as_id, kind_of, shown, typed
from masktrack_jax.evaluation.faults import Faults, Refusals
from masktrack_jax.masks import segmentations as masks
from masktrack_jax.runtime.errors import UserError

MOST_TRACKS = 100  # of one category in one video; the official rule leaves out all others
UNKNOWN_CATEGORY = "tracks whose `category_id` is not in the annotations"
OTHER_SIZE = "masks whose size is not the video's"
_NAMES_OF_LISTS = ("annotations", "results", "predictions", "tracks")  # in files that wrap the list
_BATCH = 64  # tracks whose masks are checked at once
_CURES = {
    "video_id": "write the id of a video in the annotations",
    "category_id": "write the id of a category in the annotations",
    "score": "write a finite number",
    "segmentations": "write a list with a mask or null for each frame of the video",
}


class VideoShape(NamedTuple):
    """Number of frames of a video, and their size."""

    length: int
    height: int
    width: int


class Track(NamedTuple):
    """A track with checked values; `read_masks` checks its masks. `place` is its index in the file."""

    place: int
    video_id: Id
    category_id: Id
    score: float
    segmentations: Sequence[Any]

    @property
    def where(self) -> str:
        """The name of the track in messages."""
        return f"track {self.place} (video {shown(self.video_id)})"


class Results(NamedTuple):
    """The tracks of a file that count in the score, and those that do not, in the order of the file.

    In a track that is left out, a faulty value is None.
    """

    scored: list[Track]
    left_out: list[Track]


def video_shapes(ground_truth: Mapping[str, Any]) -> dict[Id, VideoShape]:
    """The shapes of the videos of an annotations file (`data.labels`) by id."""
    return {
        video["id"]: VideoShape(video["length"], video["height"], video["width"])
        for video in ground_truth["videos"]
    }


def tracks_to_score(content: object, ground_truth: Mapping[str, Any], findings: Refusals) -> list[Track]:
    """The tracks that count in the score; the masks of all others are checked too.

    Raises a UserError for a broken track, and if no track is left.
    """
    shapes = video_shapes(ground_truth)
    categories = [category["id"] for category in ground_truth["categories"]]
    results = read_tracks(content, shapes, categories, findings)
    for _ in read_all_masks(results.left_out, shapes, findings):
        pass
    if results.left_out and not results.scored:
        reason = findings.notes[UNKNOWN_CATEGORY].examples[0]
        raise UserError(
            f"{findings.name}: none of its {len(results.left_out)} tracks can be scored: {reason}"
        )
    return results.scored


def read_tracks(
    content: object, videos: Mapping[Id, VideoShape], categories: Collection[Id], findings: Faults
) -> Results:
    """Check the content of a results file, except the masks; `categories` are the known ids."""
    if not isinstance(content, list):
        findings.error("content that is not a list of tracks", _not_a_list(content))
        return Results([], [])
    known = set(categories)
    groups: dict[tuple[Id, Id], list[Track]] = {}
    left_out = []
    for place, record in enumerate(content):
        if not isinstance(record, dict):
            findings.error("tracks that are not objects", f"track {place}: {shown(record)} is not an object")
            continue
        video_id: Any = as_id(record.get("video_id"))  # None only until `_explain`
        category_id: Any = as_id(record.get("category_id"))
        score, segmentations = _as_number(record.get("score")), record.get("segmentations", ())
        track = Track(place, video_id, category_id, score, segmentations)
        sound = track.video_id in videos and track.category_id in known and track.score is not None
        if not sound or not isinstance(track.segmentations, list):
            _explain(track, record, videos, categories, findings)
        if isinstance(track.segmentations, list):
            _check_plausible(track, videos.get(track.video_id), findings)
            if sound:
                groups.setdefault((track.video_id, track.category_id), []).append(track)
            else:
                left_out.append(track)
    scored = []
    for group in groups.values():
        _note_repeated(group, findings)
        best, others = _keep_best(group, findings)
        scored += best
        left_out += others
    return Results(*(sorted(tracks, key=lambda track: track.place) for tracks in (scored, left_out)))


def _not_a_list(content: object) -> str:
    """What is wrong with a results file that does not hold a list."""
    lists = (
        [key for key, value in content.items() if isinstance(value, list)]
        if isinstance(content, dict)
        else []
    )
    cure = "write a list with an object for each track" if lists else "give the results file"
    if named := [key for key in _NAMES_OF_LISTS if key in lists]:
        cure = f"write its list `{named[0]}` alone"
    return f"is not a JSON list of tracks but {kind_of(content)}; {cure}"


def read_all_masks(
    tracks: Sequence[Track], videos: Mapping[Id, VideoShape], findings: Faults
) -> Iterator[tuple[Track, masks.TrackMasks]]:
    """Yield each track with its masks, see `read_masks`; only those of a few tracks are in memory."""
    for video_id, group in groupby(tracks, lambda track: track.video_id):
        while batch := list(islice(group, _BATCH)):
            yield from zip(batch, read_masks(batch, videos.get(video_id), findings))


def read_masks(tracks: Sequence[Track], video: VideoShape | None, findings: Faults) -> list[masks.TrackMasks]:
    """The masks of tracks of one video, known or not. A broken mask has no RLE and an area of -2."""
    size: Any = (video.height, video.width) if video else (None, None)  # only polygons need it
    try:
        found = masks.read_tracks([track.segmentations for track in tracks], size)
    except masks.BrokenMask:
        found = [_read_one_by_one(track, size, findings) for track in tracks]
    expected = list(size)
    for track, (rles, _) in zip(tracks if video else (), found):
        for frame, rle in enumerate(rles):
            if rle is not None and rle["size"] != expected:
                stated = list(rle["size"])
                swapped = ", with height and width swapped" if stated == expected[::-1] else ""
                example = f"{track.where}, frame {frame}: size {stated}{swapped}, the video has {expected}"
                findings.flaw(OTHER_SIZE, f"{example} (height, width)")
    return found


def _read_one_by_one(track: Track, size: tuple[int, int], findings: Faults) -> masks.TrackMasks:
    rles, areas = [], []
    for frame, segmentation in enumerate(track.segmentations):
        try:
            (rle,), (area,) = masks.read_track([segmentation], size)
        except masks.BrokenMask as error:
            reason = str(error).removeprefix("frame 0: ")
            findings.error(
                "masks that cannot be decoded",
                f"{track.where}, frame {frame}: {reason:.200}; write a compressed RLE, or null",
            )
            rle, area = None, -2
        rles.append(rle)
        areas.append(area)
    return masks.TrackMasks(rles, np.array(areas, np.int64))


def _as_number(value: object) -> Any:
    """The value as a finite float, None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def _explain(
    track: Track,
    record: Mapping[str, Any],
    videos: Collection[Id],
    categories: Collection[Id],
    findings: Faults,
) -> None:
    """Report every fault of a track that cannot be scored."""
    for key, cure in _CURES.items():
        if key not in record:
            near = difflib.get_close_matches(key, [other for other in record if isinstance(other, str)], 1)
            hint = f" but `{near[0]}`" if near else ""
            if key == "video_id" and "image_id" in record:
                hint = " but `image_id`, as results of single images have"
            findings.error(f"tracks without `{key}`", f"{track.where} has no `{key}`{hint}; {cure}")
    for key, value, known, report in (
        ("video_id", track.video_id, videos, findings.error),
        ("category_id", track.category_id, categories, findings.flaw),
    ):
        found = f"{track.where} has `{key}` {typed(record.get(key))}"
        if key in record and value is None:
            example = f"{found}, neither a whole number nor text; {_CURES[key]}"
            findings.error(f"tracks whose `{key}` is not an id", example)
        elif key in record and value not in known:
            ids = ", ".join(map(shown, islice(known, 3))) + (", …" if len(known) > 3 else "")
            example = f"{found}, not one of {ids or 'none'}; {_CURES[key]}"
            report(f"tracks whose `{key}` is not in the annotations", example)
    if "score" in record and track.score is None:
        found = f"{track.where} has `score` {typed(record['score'])}"
        findings.error("scores that are not finite numbers", f"{found}; {_CURES['score']}")
    if "segmentations" in record and not isinstance(track.segmentations, list):
        found = f"{track.where} has `segmentations` {shown(track.segmentations)}, not a list"
        findings.error("`segmentations` that are not lists", f"{found}; {_CURES['segmentations']}")


def _check_plausible(track: Track, video: VideoShape | None, findings: Faults) -> None:
    """Report a track that is longer or shorter than its video, has no mask, or an unusual score."""
    length = len(track.segmentations)
    frames = length if video is None else video.length
    if length != frames:
        kind = "tracks shorter than their video" if length < frames else "tracks longer than their video"
        lost = (
            f"the last {frames - length} frames" if length < frames else f"its last {length - frames} entries"
        )
        example = f"{track.where} has {length} `segmentations`, its video {frames} frames"
        findings.flaw(kind, f"{example}; AP does not count {lost}")
    if not any(track.segmentations):
        findings.flaw("tracks without a mask in any frame", f"{track.where}: all null; leave the track out")
    if track.score is not None and not 0 <= track.score <= 1:
        example = f"{track.where}: score {track.score!r}; only their order counts in AP"
        findings.note("scores outside 0 to 1", example)


def _note_repeated(group: Sequence[Track], findings: Faults) -> None:
    """Report tracks with the masks of an earlier one, among those of one category in one video."""
    by_first_mask: dict[str, list[Track]] = {}
    for track in group:
        first_mask = next(filter(None, track.segmentations), None)
        by_first_mask.setdefault(_mask_text(first_mask), []).append(track)
    for tracks in by_first_mask.values():
        earlier: dict[tuple[str, ...], Track] = {}
        for track in tracks if len(tracks) > 1 else ():
            first = earlier.setdefault(tuple(map(_mask_text, track.segmentations)), track)
            if first is not track and first.score == track.score:
                example = f"{track.where}: the same as track {first.place}; leave it out"
                findings.flaw("tracks written twice", example)
            elif first is not track:
                example = f"{track.where}: the masks of track {first.place}"
                findings.note("tracks with the same masks and another score", example)


def _mask_text(mask: object) -> str:
    """A text that is equal for equal segmentations, quick for compressed RLEs."""
    if isinstance(mask, dict) and isinstance(mask.get("counts"), str) and isinstance(mask.get("size"), list):
        return f"{mask['size']}{mask['counts']}"
    try:
        return repr(mask)
    except RecursionError:  # lists a thousand deep, which `read_masks` refuses
        return ""


def _keep_best(group: Sequence[Track], findings: Faults) -> tuple[list[Track], list[Track]]:
    """Split the tracks of one category in one video into the best `MOST_TRACKS` and the others.

    Among equal scores the first ones of the file are kept, as by the official rule.
    """
    if len(group) <= MOST_TRACKS:
        return list(group), []
    order = np.argsort([-track.score for track in group], kind="stable")
    surplus = set(order[MOST_TRACKS:].tolist())
    example = f"video {shown(group[0].video_id)}, category {shown(group[0].category_id)}: {len(group)} tracks"
    findings.note(
        f"videos with more than {MOST_TRACKS} tracks of a category",
        f"{example}; the {len(surplus)} with the lowest scores are left out of all metrics",
    )
    return (
        [track for place, track in enumerate(group) if place not in surplus],
        [group[place] for place in sorted(surplus)],
    )
