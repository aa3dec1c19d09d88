"""Check results as the YouTube-VIS and OVIS servers do, before uploading them.

    python -m masktrack_jax.evaluation.validate results.json --annotations valid.json --zip results.zip

reports everything that is wrong, with counts and the first examples, and writes the zip only when nothing is.
RESULTS may be the json or a zip that holds it; the annotations may be the public file without labels. The
exit status is 1 when anything is wrong; notes are no faults.
"""

import argparse
import math
import zipfile
from collections import Counter
from numbers import Real
from pathlib import Path

from tqdm import tqdm

from masktrack_jax.data.json_files import RESULTS_MEMBER, open_results, read_labels
from masktrack_jax.evaluation.vis_ap import MAX_PREDICTIONS
from masktrack_jax.masks import segmentations as masks
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole
from masktrack_jax.runtime.findings import Findings

KEYS = ("video_id", "category_id", "score", "segmentations")


def validate(results_path, annotations_path, progress=False):
    """Check a results file (json, or zip that holds it) against an annotations file: `Findings`.

    Raises:
      UserError: a file cannot be read at all, or the annotations have no videos and categories.
    """
    videos, categories = _read_annotations(annotations_path)
    findings = Findings()
    results = open_results(results_path)
    _check_zip(results, findings)
    check_tracks(results.content, videos, categories, findings, progress)
    return findings


def check_tracks(tracks, videos, categories, findings, progress=False):
    """Add to `findings` whatever is wrong with a results file's content.

    Args:
      tracks: the content, a list of objects if it is sound.
      videos: video id → (length, height, width), None for what the annotations do not say.
      categories: the known category ids.
    """
    if not isinstance(tracks, list):
        findings.error("content that is not a list of tracks", f"the file holds a {type(tracks).__name__}")
        return
    if not tracks:
        findings.error("no tracks", "the list is empty; the server stops at an empty list")
    seen, per_class = {}, Counter()
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
            video = videos[track["video_id"]] if video_known else (None, None, None)
            _check_segmentations(track["segmentations"], *video, where, findings)
        _check_repeated(track, place, seen, findings)
        per_class[repr(track.get("video_id")), repr(track.get("category_id"))] += 1
    _note_counts(per_class, videos, findings)


def _check_id(track, key, known, where, findings):
    """Whether the id is one of `known`; a missing one is reported elsewhere."""
    value = track.get(key)
    if isinstance(value, int | str) and not isinstance(value, bool) and value in known:
        return True
    if key in track:
        findings.error(
            f"tracks whose `{key}` is not in the annotations",
            f"{where}: {key} {value!r:.40}, not one of them",
        )
    return False


def _check_score(track, where, findings):
    if "score" not in track:
        return
    score = track["score"]
    if isinstance(score, bool) or not isinstance(score, Real) or not math.isfinite(score):
        findings.error("scores that are not finite numbers", f"{where}: score {score!r:.40}")
    elif not 0 <= score <= 1:
        findings.note("scores outside 0 to 1", f"{where}: score {score!r}; only their order counts")


def _check_segmentations(segmentations, length, height, width, where, findings):
    """One track's masks against the video's length and size (None: not known)."""
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
    try:
        rles, areas = masks.read_track(segmentations, (height, width))  # a track at once is much faster
    except ValueError:
        rles, areas = _read_one_by_one(segmentations, (height, width), where, findings)
    for frame, (segmentation, rle, area) in enumerate(zip(segmentations, rles, areas)):
        here = f"{where}, frame {frame}"
        if rle is None:
            if segmentation is not None and area == -1:
                findings.note("absent masks not written as null", f"{here}: {segmentation!r:.40}")
            continue
        if not isinstance(segmentation, dict) or isinstance(segmentation["counts"], list):
            kind = "polygons" if isinstance(segmentation, list) else "counts as a list"
            findings.error("masks that are not compressed RLE", f"{here}: {kind}; the server takes no such")
        size = list(rle["size"])
        if None not in (height, width) and size != [height, width]:
            findings.error(
                "masks whose size is not the video's",
                f"{here}: size {size}, the video has {[height, width]} (height, width)",
            )
        if area == 0:
            findings.note("masks without a pixel", f"{here}: better null")


def _read_one_by_one(segmentations, size, where, findings):
    """As `masks.read_track`, with each mask that cannot be read reported; their areas are -2."""
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
    return rles, areas


def _check_repeated(track, place, seen, findings):
    """A track again, mask by mask: an error with the same score, a note with another."""
    key = hash(repr([track.get(key) for key in ("video_id", "category_id", "segmentations")]))
    first = seen.setdefault(key, (place, repr(track.get("score"))))
    if first[0] == place:
        return
    where = f"track {place} (video {track.get('video_id')!r:.20})"
    if first[1] == repr(track.get("score")):
        findings.error("tracks written twice", f"{where}: the same as track {first[0]}")
    else:
        findings.note("tracks with the same masks and another score", f"{where}: the masks of {first[0]}")


def _note_counts(per_class, videos, findings):
    limit = MAX_PREDICTIONS[-1]
    for (video_id, category_id), count in per_class.items():
        if count > limit:
            findings.note(
                f"videos with more than {limit} tracks of a category",
                f"video {video_id}, category {category_id}: {count}; the server keeps the {limit} best",
            )
    with_tracks = {video_id for video_id, _ in per_class}
    for video_id in videos:
        if repr(video_id) not in with_tracks:
            findings.note("videos without tracks", f"video {video_id!r}")


def _read_annotations(path):
    """({video id: (length, height, width)}, set of category ids) of an annotations file."""
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
        videos[video["id"]] = (length, video.get("height"), video.get("width"))
    return videos, {category["id"] for category in content["categories"]}


def _check_zip(results, findings):
    """Check the place of results.json in the zip that holds it, if any."""
    if not results.found:
        return
    member, *_ = results.found
    if member != RESULTS_MEMBER:
        findings.error(
            f"zip without {RESULTS_MEMBER} at its root", f"it lies at {member}; zip the file alone"
        )
    if len(results.found) > 1:
        findings.error(
            f"zip with several {RESULTS_MEMBER}", f"{', '.join(results.found[:5])}; zip one file alone"
        )
    for name in results.others:
        findings.note("other files in the zip", name)


def write_zip(results_path, zip_path):
    """Write the zip of an upload: the results, byte for byte, as `results.json` at its root.

    It appears complete or not at all; the same results give the same bytes.
    """
    entry = zipfile.ZipInfo(RESULTS_MEMBER)  # of 1980: the time of writing is nobody's concern
    entry.compress_type = zipfile.ZIP_DEFLATED
    if zipfile.is_zipfile(results_path):
        with zipfile.ZipFile(results_path) as archive:
            content = archive.read(RESULTS_MEMBER)
    else:
        content = Path(results_path).read_bytes()
    with whole(zip_path, "choose another --zip") as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(entry, content)


def write_submission(results_path, annotations_path, zip_path=None):
    """Write what the server takes, by default beside the results, and return its path; notes are printed.

    Raises a UserError, and prints what is wrong, where the server would refuse it.
    """
    zip_path = zip_path or Path(results_path).with_suffix(".zip")
    findings = validate(results_path, annotations_path, progress=True)
    findings.conclude(results_path, f"; {zip_path} not written")
    write_zip(results_path, zip_path)
    return zip_path


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.evaluation.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="results.json, or a zip that holds it")
    parser.add_argument("--annotations", required=True, help="file with the videos and categories")
    parser.add_argument("--zip", help="write the upload here when nothing is wrong")
    return parser


def main(arguments=None):
    """Run the command: prints what was found; exit status 1 when something is wrong."""
    options = _parser().parse_args(arguments)
    if options.zip:
        print(write_submission(options.results, options.annotations, options.zip))
    else:
        validate(options.results, options.annotations, progress=True).conclude(options.results)


if __name__ == "__main__":
    cli.run(main)
