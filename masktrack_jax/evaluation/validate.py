"""Check results as the YouTube-VIS and OVIS servers do, before uploading them.

    python -m masktrack_jax.evaluation.validate results.json --annotations valid.json --zip results.zip

reports all errors, with counts and the first examples, and writes the zip only if there are none. RESULTS may
be the json or a zip that contains it. The annotations may be the public file without labels. The exit status
is 1 if there are errors; notes are not errors.
"""

import argparse
import math
import zipfile
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from masktrack_jax.data.json_files import RESULTS_MEMBER, ResultsFile, open_results, read_labels
from masktrack_jax.evaluation.overlaps import Id
from masktrack_jax.evaluation.vis_ap import MAX_PREDICTIONS
from masktrack_jax.masks import segmentations as masks
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole
from masktrack_jax.runtime.findings import Findings

KEYS = ("video_id", "category_id", "score", "segmentations")


class VideoShape(NamedTuple):
    """Number of frames and size of a video, None if the annotations do not state it."""

    length: int | None = None
    height: int | None = None
    width: int | None = None


def validate(results_path: str | Path, annotations_path: str | Path, progress: bool = False) -> Findings:
    """Check a results file (json, or a zip that holds it) against an annotations file.

    Raises:
      UserError: a file cannot be read, or the annotations have no videos and categories.
    """
    videos, categories = _read_annotations(annotations_path)
    findings = Findings()
    results = open_results(results_path)
    _check_file(results, findings)
    check_tracks(results.content, videos, categories, findings, progress)
    return findings


def check_tracks(
    tracks: object,
    videos: Mapping[Id, VideoShape],
    categories: Container[Id],
    findings: Findings,
    progress: bool = False,
) -> None:
    """Add the errors in the content of a results file to `findings`.

    Args:
      tracks: the content, a list of objects if it is valid.
      videos: shapes of the videos by id.
      categories: the known category ids.
      progress: show a progress bar on a terminal.
    """
    if not isinstance(tracks, list):
        findings.error("content that is not a list of tracks", f"the file holds a {type(tracks).__name__}")
        return
    if not tracks:
        findings.error("no tracks", "the list is empty; the server stops at an empty list")
    seen: dict[int, tuple[int, str]] = {}
    per_class: Counter[tuple[str, str]] = Counter()
    for place, track in enumerate(tqdm(tracks, "checking", unit="track", disable=None if progress else True)):
        if not isinstance(track, dict):
            findings.error("tracks that are not objects", f"track {place}: {track!r:.60}")
            continue
        where = f"track {place} (video {track.get('video_id')!r:.20})"
        for key in KEYS:
            if key not in track:
                findings.error(f"tracks without `{key}`", where)
        video_known = _check_id(track, "video_id", videos, where, findings)
        _check_id(track, "category_id", categories, where, findings)
        _check_score(track, where, findings)
        if "segmentations" in track:
            video = videos[track["video_id"]] if video_known else VideoShape()
            _check_segmentations(track["segmentations"], video, where, findings)
        _check_repeated(track, place, seen, findings)
        per_class[repr(track.get("video_id")), repr(track.get("category_id"))] += 1
    _note_counts(per_class, videos, findings)


def _check_id(track: dict[str, Any], key: str, known: Container[Id], where: str, findings: Findings) -> bool:
    """Whether the id is one of `known`; `check_tracks` reports a missing id."""
    value = track.get(key)
    if isinstance(value, int | str) and not isinstance(value, bool) and value in known:
        return True
    if key in track:
        findings.error(
            f"tracks whose `{key}` is not in the annotations",
            f"{where}: {key} {value!r:.40}, not one of them",
        )
    return False


def _check_score(track: dict[str, Any], where: str, findings: Findings) -> None:
    if "score" not in track:
        return
    score = track["score"]
    if isinstance(score, bool) or not isinstance(score, Real) or not math.isfinite(score):
        findings.error("scores that are not finite numbers", f"{where}: score {score!r:.40}")
    elif not 0 <= float(score) <= 1:
        findings.note("scores outside 0 to 1", f"{where}: score {score!r}; only their order counts")


def _check_segmentations(segmentations: object, video: VideoShape, where: str, findings: Findings) -> None:
    """Check the masks of a track against the length and size of its video."""
    length, height, width = video
    if not isinstance(segmentations, list):
        findings.error(
            "`segmentations` that are not lists", f"{where}: {type(segmentations).__name__}, not a list"
        )
        return
    if length is not None and len(segmentations) != length:
        findings.error(
            "tracks whose length is not the video's",
            f"{where}: {len(segmentations)} segmentations, the video has {length} frames",
        )
    if all(segmentation is None for segmentation in segmentations):
        findings.error("tracks without a mask in any frame", f"{where}: all null; leave the track out")
        return
    size: Any = height, width  # None if unknown; only polygons need it
    try:
        found = masks.read_track(segmentations, size)  # reading a whole track is much faster
    except ValueError:
        found = _read_one_by_one(segmentations, size, where, findings)
    for frame, (segmentation, rle, area) in enumerate(zip(segmentations, found.rles, found.areas)):
        here = f"{where}, frame {frame}"
        if rle is None:
            if segmentation is not None and area == -1:
                findings.note("absent masks not written as null", f"{here}: {segmentation!r:.40}")
            continue
        if not isinstance(segmentation, dict) or isinstance(segmentation["counts"], list):
            kind = "polygons" if isinstance(segmentation, list) else "counts as a list"
            findings.error(
                "masks that are not compressed RLE", f"{here}: {kind}; the server accepts only compressed RLE"
            )
        if None not in (height, width) and list(rle["size"]) != [height, width]:
            findings.error(
                "masks whose size is not the video's",
                f"{here}: size {list(rle['size'])}, the video has {[height, width]} (height, width)",
            )
        if area == 0:
            findings.note("masks without a pixel", f"{here}: write null instead")


def _read_one_by_one(
    segmentations: Sequence[Any], size: tuple[int, int], where: str, findings: Findings
) -> masks.TrackMasks:
    """`masks.read_track`, except that broken masks are reported and get an area of -2."""
    rles, areas = [], []
    for frame, segmentation in enumerate(segmentations):
        try:
            (rle,), (area,) = masks.read_track([segmentation], size)
        except ValueError as error:
            reason = str(error).removeprefix("frame 0: ")
            findings.error("masks that cannot be decoded", f"{where}, frame {frame}: {reason:.160}")
            rle, area = None, -2
        rles.append(rle)
        areas.append(area)
    return masks.TrackMasks(rles, np.array(areas, np.int64))


def _check_repeated(
    track: dict[str, Any], place: int, seen: dict[int, tuple[int, str]], findings: Findings
) -> None:
    """Report a track with the masks of an earlier one: an error if the scores are equal, else a note.

    `seen` maps a hash of the ids and masks of earlier tracks to their place and score.
    """
    key = hash(repr([track.get(key) for key in ("video_id", "category_id", "segmentations")]))
    score = repr(track.get("score"))
    first_place, first_score = seen.setdefault(key, (place, score))
    if first_place == place:
        return
    where = f"track {place} (video {track.get('video_id')!r:.20})"
    if first_score == score:
        findings.error("tracks written twice", f"{where}: the same as track {first_place}")
    else:
        findings.note(
            "tracks with the same masks and another score", f"{where}: the masks of track {first_place}"
        )


def _note_counts(
    per_class: Mapping[tuple[str, str], int], videos: Mapping[Id, VideoShape], findings: Findings
) -> None:
    """Note videos with more tracks of a category than the server keeps, and videos without tracks."""
    limit = MAX_PREDICTIONS[-1]
    for (video, category), count in per_class.items():
        if count > limit:
            findings.note(
                f"videos with more than {limit} tracks of a category",
                f"video {video}, category {category}: {count}; the server keeps the {limit} best",
            )
    with_tracks = {video for video, _ in per_class}
    for video_id in videos:
        if repr(video_id) not in with_tracks:
            findings.note("videos without tracks", f"video {video_id!r}")


def _read_annotations(path: str | Path) -> tuple[dict[Id, VideoShape], set[Id]]:
    """Read the shapes of the videos by id, and the category ids, from an annotations file."""
    content = read_labels(path)
    for key in ("videos", "categories"):
        records = content.get(key)
        if not isinstance(records, list) or not all(
            isinstance(record, dict) and isinstance(record.get("id"), int | str) for record in records
        ):
            raise UserError(
                f"{path}: '{key}' is missing or not a list of objects with an id; give the annotations file"
            )
    videos = {}
    for video in content["videos"]:
        names = video.get("file_names")
        length = len(names) if isinstance(names, list) else video.get("length")
        videos[video["id"]] = VideoShape(length, video.get("height"), video.get("width"))
    return videos, {category["id"] for category in content["categories"]}


def _check_file(results: ResultsFile, findings: Findings) -> None:
    """Check the encoding, and the place of results.json in the zip, if the file is a zip."""
    if not results.utf8:
        findings.error("text that the server cannot read", "a byte order mark or UTF-16; save it as UTF-8")
    found, expected = results.found, RESULTS_MEMBER
    if found and found[0] != expected:
        findings.error(f"zip without {expected} at its root", f"it is at {found[0]}; zip the file alone")
    if len(found) > 1:
        findings.error(f"zip with several {expected}", f"{', '.join(found[:5])}; zip one file alone")
    for name in results.others:
        findings.note("other files in the zip", name)


def write_zip(results_path: str | Path, zip_path: str | Path) -> None:
    """Write the zip to upload atomically, with the bytes of the results as `results.json` at its root.

    The same results give the same bytes.
    """
    entry = zipfile.ZipInfo(RESULTS_MEMBER)  # with a constant date
    entry.compress_type = zipfile.ZIP_DEFLATED
    if zipfile.is_zipfile(results_path):
        with zipfile.ZipFile(results_path) as archive:
            content = archive.read(RESULTS_MEMBER)
    else:
        content = Path(results_path).read_bytes()
    with whole(zip_path, "choose another --zip") as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(entry, content)


def write_submission(
    results_path: str | Path, annotations_path: str | Path, zip_path: str | Path | None = None
) -> str | Path:
    """Validate results, write the zip for the server, by default beside the results, and return its path.

    Prints errors and notes. Raises a UserError if the server would reject the results.
    """
    zip_path = zip_path or Path(results_path).with_suffix(".zip")
    findings = validate(results_path, annotations_path, progress=True)
    findings.conclude(str(results_path), f"; {zip_path} not written")
    write_zip(results_path, zip_path)
    return zip_path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.evaluation.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="results.json, or a zip that holds it")
    parser.add_argument("--annotations", required=True, help="json file with the videos and categories")
    parser.add_argument("--zip", help="path of the zip to upload, written if there is no error")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: print errors and notes; the exit status is 1 if there is an error."""
    options = _parser().parse_args(arguments)
    if options.zip:
        print(write_submission(options.results, options.annotations, options.zip))
    else:
        validate(options.results, options.annotations, progress=True).conclude(options.results)


if __name__ == "__main__":
    cli.run(main)
