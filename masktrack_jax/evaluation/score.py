"""Scoring of results files: `evaluate.py --annotations … --results … --output …`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from masktrack_jax.data.json_files import open_results
from masktrack_jax.data.labels import LabelsFile, check_labels
from masktrack_jax.data.values import shown
from masktrack_jax.data.vis import default_frames_root
from masktrack_jax.evaluation.diagnosis.page import write_page
from masktrack_jax.evaluation.diagnosis.report import diagnose, format_diagnosis
from masktrack_jax.evaluation.faults import Refusals
from masktrack_jax.evaluation.identity import HEADLINE, identity_metrics
from masktrack_jax.evaluation.overlaps import overlap_tracks
from masktrack_jax.evaluation.results import format_table, read_ground_truth, write_metrics
from masktrack_jax.evaluation.tracks import Track, tracks_to_score
from masktrack_jax.evaluation.vis_ap import average_precision
from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.files import make_folder


def score_files(
    annotations_path: str | Path,
    results_path: str | Path,
    output_path: str | Path | None = None,
    *,
    diagnosed: bool = False,
    frames_root: str | Path | None = None,
) -> dict[str, Any]:
    """Score a results file on its labels, print a table and write `metrics.json`.

    Args:
      annotations_path: YouTube-VIS json with labels.
      results_path: results.json in the server's format.
      output_path: path of the metrics, or None to write nothing.
      diagnosed: also diagnose the errors: add `diagnosis` to the metrics, print a second table, and write
        `diagnosis.html` beside the output.
      frames_root: folder of the frames for the pictures of that page; the default is that of `read_vis`.
    Returns:
      The metrics, see `score`, with `diagnosis` if `diagnosed`.
    Raises:
      UserError: one line that names the file and record.
    """
    results = open_results(results_path)
    if len(results.found) > 1:
        raise UserError(f"{results_path}: holds {', '.join(results.found[:5])}; zip one of them alone")
    labels = read_ground_truth(annotations_path)
    return score_tracks(
        labels,
        results.content,
        (printable(str(annotations_path)), printable(str(results_path))),
        output_path,
        diagnosed=diagnosed,
        frames_root=frames_root or default_frames_root(annotations_path, labels["videos"]),
    )


def score_tracks(
    labels: LabelsFile,
    results: object,
    names: tuple[str, str],
    output_path: str | Path | None = None,
    *,
    diagnosed: bool = False,
    frames_root: str | Path | None = None,
) -> dict[str, Any]:
    """`score_files` for the contents of two files with these `names`; the labels are checked."""
    if output_path is not None:
        make_folder(Path(output_path).parent)
    findings = Refusals(names[1])
    tracks = tracks_to_score(results, labels, findings)
    metrics = _measure(labels, tracks, findings, progress=True)
    diagnosis = None
    if diagnosed:
        diagnosis = diagnose(labels, tracks, findings.one_liners(), progress=True)
        metrics["diagnosis"] = diagnosis.report
    if output_path is not None:
        write_metrics(output_path, metrics)
    print(format_table(metrics))
    for note in metrics["notes"]:
        print(printable(f"note: {note}"))
    if diagnosis is not None:
        print(f"\n{format_diagnosis(diagnosis.report)}")
        if output_path is not None:
            page = Path(output_path).with_name("diagnosis.html")
            write_page(page, diagnosis, labels, tracks, names, frames_root)
            print(printable(f"page: {page}"))
    return metrics


def score(
    ground_truth: dict[str, Any],
    results: object,
    names: tuple[str, str] = ("ground truth", "results"),
    progress: bool = False,
) -> dict[str, Any]:
    """The content of `metrics.json` for the contents of an annotations file and a results file.

    It holds the twelve official numbers and `per_category` (see `vis_ap`); HOTA, DetA, AssA, LocA, IDF1,
    MOTA, IDSW and Frag pooled over all objects; `identity`, all of `identity_metrics` by category name; and
    `notes`, a list of lines. Identity metrics use tracks with a score of at least 0.5, AP uses all tracks.
    """
    labels, findings = check_labels(ground_truth, names[0]), Refusals(names[1])
    return _measure(labels, tracks_to_score(results, labels, findings), findings, progress)


def _measure(
    labels: LabelsFile, tracks: Sequence[Track], findings: Refusals, progress: bool
) -> dict[str, Any]:
    overlaps = overlap_tracks(labels, tracks, findings, progress)
    vis = average_precision(overlaps)
    identity = identity_metrics(overlaps)
    category_names = vis.category_names()
    identity["per_category"] = {
        category_names[category_id]: {key: value for key, value in row.items() if key != "name"}
        for category_id, row in identity["per_category"].items()
    }
    headline = {name: identity["pooled"][name] for name in HEADLINE}
    notes = [f"labels: {note}" for note in labels.notes] + vis.notes
    notes += [*_note_untracked(labels, tracks), *_note_crowds(labels)]
    return vis.to_dict() | headline | {"identity": identity, "notes": notes}


def _note_untracked(labels: LabelsFile, tracks: Sequence[Track]) -> Iterator[str]:
    """A note if labelled videos have no track: often the results are partial or use other ids."""
    tracked = {track.video_id for track in tracks}
    labelled = {annotation["video_id"] for annotation in labels["annotations"]}
    if missing := sorted(labelled - tracked):
        yield f"{len(missing)} of {len(labelled)} labelled videos have no track, first id {shown(missing[0])}"


def _note_crowds(labels: LabelsFile) -> Iterator[str]:
    """A note if AP has no object to average over."""
    crowds = [annotation.get("iscrowd") for annotation in labels["annotations"]]
    if crowds and all(crowds):
        yield f"no AP: all {len(crowds)} labelled objects are crowds (`iscrowd` is 1), which it leaves out"
