"""Check results as the YouTube-VIS and OVIS servers do, before uploading them.

    python -m masktrack_jax.evaluation.validate results.json --annotations valid.json --zip results.zip

reports all errors, with counts and the first examples, and writes the zip only if there are none. RESULTS may
be the json or a zip that contains it. The annotations may be the public file without labels. The exit status
is 1 if there are errors; notes are not errors.
"""

import argparse
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from masktrack_jax.data.json_files import RESULTS_MEMBER, ResultsFile, open_results, read_labels
from masktrack_jax.data.values import Id, shown
from masktrack_jax.evaluation.faults import Faults
from masktrack_jax.evaluation.tracks import (
    Track,
    VideoShape,
    read_all_masks,
    read_tracks,
    video_shapes,
)
from masktrack_jax.masks.segmentations import TrackMasks
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.files import is_same_file, whole


def validate(results_path: str | Path, annotations_path: str | Path, progress: bool = False) -> Faults:
    """Check a results file (json, or a zip that holds it) against an annotations file.

    Raises:
      UserError: a file cannot be read, or the annotations are faulty.
    """
    labels = read_labels(annotations_path)
    results, findings = open_results(results_path), Faults()
    for line in labels.notes:
        findings.note("values in the annotations that were read as others", line)
    _check_file(results, findings)
    categories = [category["id"] for category in labels["categories"]]
    check_content(results.content, video_shapes(labels), categories, findings, progress)
    return findings


def check_content(
    content: object,
    videos: Mapping[Id, VideoShape],
    categories: Collection[Id],
    findings: Faults,
    progress: bool = False,
) -> None:
    """Add the errors in the content of a results file to `findings`.

    Args:
      content: a list of tracks if it is valid.
      videos: shapes of the videos by id.
      categories: the known category ids.
      findings: takes the errors and notes.
      progress: show a progress bar on a terminal.
    """
    results = read_tracks(content, videos, categories, findings)
    if content == []:
        findings.error("no tracks", "the list is empty; the server stops at an empty list")
    tracks = sorted(results.scored + results.left_out, key=lambda track: track.place)
    hidden = None if progress else True
    found = read_all_masks(tracks, videos, findings)
    for track, masks in tqdm(found, "checking", len(tracks), unit="track", disable=hidden):
        _check_form(track, masks, findings)
    with_tracks = {track.video_id for track in tracks}
    for video_id in videos:
        if video_id not in with_tracks:
            findings.note("videos without tracks", f"video {shown(video_id)}")


def _check_form(track: Track, masks: TrackMasks, findings: Faults) -> None:
    """Check that the masks of a track are written as the servers expect them."""
    for frame, (segmentation, rle, area) in enumerate(zip(track.segmentations, *masks)):
        if segmentation is None:
            continue
        compressed = isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), str)
        if rle is None and area == -1:
            example = f"{track.where}, frame {frame}: {shown(segmentation)}"
            findings.note("absent masks not written as null", example)
        if rle is not None and not compressed:
            kind = "polygons" if isinstance(segmentation, list) else "counts as a list"
            example = f"{track.where}, frame {frame}: {kind}; the server accepts only compressed RLE"
            findings.error("masks that are not compressed RLE", example)
        if area == 0:
            findings.note("masks without a pixel", f"{track.where}, frame {frame}: write null instead")


def _check_file(results: ResultsFile, findings: Faults) -> None:
    """Check the encoding, and the place of results.json in the zip, if the file is a zip."""
    if not results.utf8:
        findings.error("text that the server cannot read", "a byte order mark or UTF-16; save it as UTF-8")
    found, expected = results.found, RESULTS_MEMBER
    if found and found[0] != expected:
        findings.error(f"zip without {expected} at its root", f"it is at {found[0]}; zip the file alone")
    if len(found) > 1:
        example = f"holds {', '.join(found[:5])}; zip one of them alone"
        findings.error(f"zip with several {expected}", example)
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
    zip_path = Path(zip_path or Path(results_path).with_suffix(".zip"))
    for path in (results_path, annotations_path):
        if is_same_file(zip_path, path) and not zipfile.is_zipfile(path):
            raise UserError(f"{zip_path}: --zip would replace it; choose another --zip")
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
        print(printable(str(write_submission(options.results, options.annotations, options.zip))))
    else:
        validate(options.results, options.annotations, progress=True).conclude(options.results)


if __name__ == "__main__":
    cli.command(main)
