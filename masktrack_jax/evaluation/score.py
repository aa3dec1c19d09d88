"""Scoring of files: what `evaluate.py --annotations … --results … --output …` does."""

from pathlib import Path

from masktrack_jax.data.json_files import read_results
from masktrack_jax.data.vis import default_frames_root
from masktrack_jax.evaluation.diagnosis.page import write_page
from masktrack_jax.evaluation.diagnosis.report import diagnose, format_diagnosis
from masktrack_jax.evaluation.identity import HEADLINE, identity_metrics
from masktrack_jax.evaluation.overlaps import compute_overlaps
from masktrack_jax.evaluation.results import format_table, read_ground_truth, write_metrics
from masktrack_jax.evaluation.vis_ap import average_precision
from masktrack_jax.runtime.files import make_folder


def score_files(
    annotations_path, results_path, output_path=None, score_threshold=0.5, diagnosed=False, frames_root=None
):
    """Scores a results file, prints a table, writes `metrics.json` if asked to.

    Args:
      annotations_path: YouTube-VIS json with labels.
      results_path: results.json in the server's format.
      output_path: where the metrics go, or None.
      score_threshold: for the identity metrics only; AP needs every track.
      diagnosed: tell the kinds of error apart too: `diagnosis` among the metrics, a second table, and
        `diagnosis.html` beside the output.
      frames_root: folder of the frames for the pictures of that page, by default where `read_vis` looks.
    Returns:
      `score(…)` of the two.
    Raises:
      UserError: one line that names the file and record.
    """
    names = (str(annotations_path), str(results_path))
    ground_truth = read_ground_truth(annotations_path)
    return score_tracks(
        ground_truth,
        read_results(results_path),
        names,
        output_path,
        score_threshold,
        diagnosed,
        frames_root or default_frames_root(annotations_path),
    )


def score_tracks(
    ground_truth, results, names, output_path=None, score_threshold=0.5, diagnosed=False, frames_root=None
):
    """`score_files` of what was read from files of these names."""
    if output_path is not None:
        make_folder(Path(output_path).parent)
    metrics = score(ground_truth, results, names, score_threshold, progress=True)
    if diagnosed:
        diagnosis = diagnose(ground_truth, results, names, progress=True)
        metrics["diagnosis"] = diagnosis.report
    if output_path is not None:
        write_metrics(output_path, metrics)
    print(format_table(metrics))
    for note in metrics["notes"]:
        print(f"note: {note}")
    if diagnosed:
        print(f"\n{format_diagnosis(diagnosis.report)}")
        if output_path is not None:
            page = Path(output_path).with_name("diagnosis.html")
            write_page(page, diagnosis, ground_truth, results, names, frames_root)
            print(f"page: {page}")
    return metrics


def score(ground_truth, results, names=("ground truth", "results"), score_threshold=0.5, progress=False):
    """The content of `metrics.json` for a ground truth dict and a list of tracks.

    The twelve official numbers and `per_category` (see `vis_ap`); HOTA, DetA, AssA, LocA, IDF1, MOTA,
    IDSW, Frag pooled over all objects beside them; `identity` with all of `identity_metrics`, by
    category name; `notes`, a list of lines.
    """
    overlaps = compute_overlaps(ground_truth, results, names, progress)
    vis = average_precision(overlaps)
    identity = identity_metrics(overlaps, score_threshold)
    labels = vis.category_names()
    identity["per_category"] = {
        labels[category_id]: {key: value for key, value in row.items() if key != "name"}
        for category_id, row in identity["per_category"].items()
    }
    headline = {name: identity["pooled"][name] for name in HEADLINE}
    notes = [*vis.notes, *_note_of_untracked(ground_truth, results)]
    return vis.to_dict() | headline | {"identity": identity, "notes": notes}


def _note_of_untracked(ground_truth, results):
    """A line where labelled videos have no track at all: often results of a part, or with other ids."""
    tracked = {track["video_id"] for track in results}
    labelled = {annotation["video_id"] for annotation in ground_truth["annotations"]}
    if missing := sorted(labelled - tracked, key=str):
        yield f"{len(missing)} of {len(labelled)} labelled videos have no track, first id {missing[0]!r}"
