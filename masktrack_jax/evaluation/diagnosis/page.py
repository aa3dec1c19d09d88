"""Write the diagnosis as one self-contained HTML page, without scripts or external files."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from masktrack_jax.data.json_files import write_text
from masktrack_jax.data.labels import LabelsFile
from masktrack_jax.data.values import Id
from masktrack_jax.evaluation.diagnosis import plots
from masktrack_jax.evaluation.diagnosis.corrections import BACKGROUND_IOU, CORRECTIONS
from masktrack_jax.evaluation.diagnosis.pictures import MAX_TRACKS, draw_strip
from masktrack_jax.evaluation.diagnosis.report import KINDS, Diagnosis
from masktrack_jax.evaluation.diagnosis.worst import WorstObject, WorstTrack
from masktrack_jax.evaluation.tracks import Track
from masktrack_jax.runtime.errors import printable
from masktrack_jax.video.overlay import track_color

TITLES = {
    "identities": "identities corrected",
    "classes": "classes corrected",
    "masks": "masks corrected",
    "missed": "missed objects added",
    "false": "false tracks removed",
}
DEFINITIONS = {
    "identities": "all masks assigned to an object go to one track: split tracks are merged, mixed ones cut",
    "classes": "each track gets the class of its main object, with which it overlaps most",
    "masks": "the true mask of its assigned object replaces each mask",
    "missed": "objects, and frames of objects, without an assigned mask get the true masks",
    "false": "background masks, background tracks and duplicate tracks of an object are removed",
}
STYLE = """
body { max-width: 720px; margin: 48px auto 96px; padding: 0 20px; background: #fff; color: #1d2733;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 56px 0 6px; }
p { margin: 0 0 14px; }
.lead { font-size: 20px; line-height: 1.45; margin: 20px 0 28px; padding-left: 16px;
  border-left: 4px solid #2a6fbb; }
.quiet, figcaption, small { color: #66727f; font-size: 14px; }
.big { display: flex; gap: 40px; margin: 20px 0; }
.big b { display: block; font-size: 34px; line-height: 1.2; font-weight: 600; }
svg { display: block; width: 100%; height: auto; margin: 12px 0;
  font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 8px; border-bottom: 1px solid #e4e8ec; }
th { font-weight: 600; color: #66727f; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.part td { padding-top: 16px; font-weight: 600; }
figure { margin: 22px 0 30px; }
figure img { display: block; width: 100%; border-radius: 3px; }
figcaption { margin-bottom: 8px; }
figcaption b { color: #1d2733; }
figcaption span { white-space: nowrap; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 4px 0 10px; }
.note { background: #fdf4e3; padding: 10px 14px; border-radius: 4px; font-size: 14px; }
dt { font-weight: 600; } dd { margin: 0 0 8px; color: #66727f; }
"""


class _Pictures(NamedTuple):
    """Figures of the worst objects and tracks, and a note if frames are missing."""

    objects: list[str]
    tracks: list[str]
    note: str | None


def write_page(
    path: str | Path,
    diagnosis: Diagnosis,
    labels: LabelsFile,
    tracks: Sequence[Track],
    names: tuple[str, str],
    frames_root: str | Path | None = None,
) -> None:
    """Write the page atomically.

    Args:
      path: path of the page.
      diagnosis: the diagnosis of the results.
      labels, tracks: the arguments of `diagnose`.
      names: names of the two files, shown on the page.
      frames_root: folder of the frames. If an image is not found, masks are drawn on grey, and the page has a
        note.
    """
    write_text(path, make_page(diagnosis, labels, tracks, names, frames_root))


def make_page(
    diagnosis: Diagnosis,
    labels: LabelsFile,
    tracks: Sequence[Track],
    names: tuple[str, str],
    frames_root: str | Path | None = None,
) -> str:
    """The HTML of the page; see `write_page`."""
    report = diagnosis.report
    pictures = _draw_pictures(diagnosis, labels, tracks, frames_root)
    titles = {name: (KINDS[name].capitalize(), TITLES[name]) for name in CORRECTIONS}
    body = [
        "<h1>Why is AP not higher?</h1>",
        f'<p class="quiet">{escape(names[1])} evaluated on {escape(names[0])}</p>',
        f'<p class="lead">{escape(report["summary"])}</p>',
        '<div class="big">',
        *(f"<div><b>{_number(report[name])}</b>{name}</div>" for name in ("AP", "AP50")),
        f"<div><b>{len(labels['videos'])}</b>videos</div>",
        f"<div><b>{len(labels['annotations'])}</b>objects</div>",
        f"<div><b>{len(tracks)}</b>predicted tracks</div></div>",
        *(f'<p class="note">{escape(note)}</p>' for note in report["notes"]),
        "<h2>What each kind of error costs</h2>",
        "<p>Gain of AP when one kind of error is corrected with the ground truth and all else stays the same."
        "</p>",
        plots.gains_bars(report["gains"], titles),
        f'<p class="quiet">Gains of AP50: {_gains50(report)}. AP after all five corrections: '
        f"{_number(report['corrected']['all'])}. The gains do not add up, because a track may have several "
        "errors.</p>",
        "<h2>Where AP is lost</h2>",
        "<p>Gains by size, length and occlusion of the objects, and by category (lowest AP first). "
        "Darker cells: larger gains.</p>",
        _table(report),
        "<h2>Precision and recall</h2>",
        "<p>Mean over the categories, one curve for each IoU threshold. AP is the mean over the ten "
        "thresholds.</p>",
        plots.precision_recall(diagnosis.precision),
        "<h2>Are the scores calibrated?</h2>",
        "<p>Share of the tracks with a score that match an object of their class at IoU ≥ 0.5. "
        "On the dashed line the score equals this share; below it, the scores are overconfident.</p>",
        plots.calibration(report["calibration"]),
        "<h2>Worst objects</h2>",
        "<p>Objects with the lowest IoU with any track of their class. Above, in white, the true masks. "
        "Below, the tracks with masks assigned to the object, one colour each: a change of colour is a "
        "change of identity.</p>",
        *([f'<p class="note">{escape(pictures.note)}</p>'] if pictures.note else []),
        *(pictures.objects or ["<p>None.</p>"]),
        "<h2>Worst tracks</h2>",
        "<p>Tracks with the highest scores that match no object. Above, in white, the objects to which their "
        "masks are assigned.</p>",
        *(pictures.tracks or ["<p>None.</p>"]),
        "<h2>Definitions</h2>",
        "<p>A mask is assigned to the object with which it has the highest IoU in its frame, whatever its "
        f"class. If that IoU is below {BACKGROUND_IOU}, it is a background mask. Each correction changes one "
        "thing:</p><dl>",
        *(f"<dt>{KINDS[name].capitalize()}</dt><dd>{DEFINITIONS[name]}.</dd>" for name in CORRECTIONS),
        "</dl><p class='quiet'>Between the first and the last frame in which it is visible, an object is "
        "hidden where it has no mask, or one smaller than half of its median area. A prediction that matches "
        "no object counts in the bucket of its own masks.</p>",
    ]
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report["summary"])}'
    head += '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
    return f"{head}<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def escape(text: str) -> str:
    """The text for the page: it may come from a file."""
    return html.escape(printable(text))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(gain: float) -> str:
    return f"{gain:+.3f}".replace("-", "−")


def _gains50(report: dict[str, Any]) -> str:
    gains = report["gains50"].items()
    return ", ".join(f"{name} {'–' if gain is None else _signed(gain)}" for name, gain in gains)


def _table(report: dict[str, Any]) -> str:
    """AP and gains of buckets and categories; the background colour of a cell shows its gain."""
    rows = [report["gains"], *(b["gains"] for b in report["buckets"])]
    rows += [row["gains"] for row in report["per_category"].values()]
    most = max([gain for row in rows for gain in row.values() if gain is not None], default=0)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("labels", "AP", *CORRECTIONS))
    lines = [f"<table><thead><tr><th></th>{head}</tr></thead><tbody>"]
    title = f'<tr class="part"><td colspan="{3 + len(CORRECTIONS)}">%s</td></tr>'
    part = None
    for bucket in report["buckets"]:
        if bucket["kind"] != part:
            part = bucket["kind"]
            lines.append(title % part.capitalize())
        lines.append(_table_row(bucket["name"], bucket, most))
    lines.append(title % "Category")
    # Categories without labels have no AP and come last.
    ranked = sorted(report["per_category"].items(), key=lambda i: 2 if i[1]["AP"] is None else i[1]["AP"])
    lines += [_table_row(name, row, most) for name, row in ranked]
    return "\n".join([*lines, "</tbody></table>"])


def _table_row(name: str, row: dict[str, Any], most: float) -> str:
    cells = [f"<td>{row['labels']}</td><td>{_number(row['AP'])}</td>"]
    for gain in row["gains"].values():
        if gain is None:
            cells.append("<td>–</td>")
            continue
        shade = max(gain, 0) / most if most > 0 else 0
        color = f"rgba(42,111,187,{0.5 * shade:.2f})" if gain >= 0 else "rgba(192,80,77,0.15)"
        cells.append(f'<td style="background:{color}">{_signed(gain)}</td>')
    return f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>"


def _draw_pictures(
    diagnosis: Diagnosis, labels: LabelsFile, tracks: Sequence[Track], frames_root: str | Path | None
) -> _Pictures:
    videos = {video["id"]: video for video in labels["videos"]}
    categories = {category["id"]: category["name"] for category in labels["categories"]}
    root = None if frames_root is None else Path(frames_root)
    pictures = _Pictures([], [], None)
    shown = missing = 0
    for figures, cases in (
        (pictures.objects, diagnosis.worst_objects),
        (pictures.tracks, diagnosis.worst_tracks),
    ):
        for case in cases:
            video = videos[case.video_id]
            drawn = [tracks[i] for i in case.tracks[:MAX_TRACKS]]
            true = [labels["annotations"][i]["segmentations"] for i in case.labels]
            predicted = [track.segmentations for track in drawn]
            strip = draw_strip(video, true, predicted, case.frames, root)
            shown, missing = shown + strip.shown, missing + strip.missing
            figures.append(_figure(case, strip.uri, drawn, categories))
    if not missing:
        return pictures
    where = f"below {root}" if root is not None else "(no folder of frames is known)"
    note = f"{missing} of the {shown} frames shown here were not found {where}; masks are drawn on grey. "
    note += "Use --frames to name the folder to which the file_names of the annotations are relative."
    return pictures._replace(note=note)


def _figure(
    case: WorstObject | WorstTrack, uri: str, tracks: Sequence[Track], categories: Mapping[Id, str]
) -> str:
    """A strip with its caption; `tracks` are those drawn on it."""
    legend = "".join(
        f'<span><span class="swatch" style="background:rgb{track_color(i)}"></span>'
        f"{escape(categories[track.category_id])} {track.score:.2f}</span>"
        for i, track in enumerate(tracks)
    )
    if not tracks:
        legend = " no track"
    elif len(case.tracks) > len(tracks):
        legend += f" and {len(case.tracks) - len(tracks)} more"
    title = escape(case.title)
    where = escape(f"video {case.video_id}, frames {case.frames[0]}–{case.frames[-1]}")
    return (
        f"<figure><figcaption><b>{title}</b>: {escape(case.reason)}<br>{where} ·{legend}"
        f'</figcaption><img src="{uri}" alt="{title}, {where}"></figure>'
    )
