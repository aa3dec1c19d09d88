"""The diagnosis as one HTML page that needs nothing else: no network, no script, pictures inside."""

from html import escape
from pathlib import Path

from masktrack_jax.data.json_files import write_text
from masktrack_jax.evaluation.diagnosis import plots
from masktrack_jax.evaluation.diagnosis.corrections import CORRECTIONS, LIES_ON
from masktrack_jax.evaluation.diagnosis.pictures import TRACKS, draw_strip
from masktrack_jax.evaluation.diagnosis.report import KINDS
from masktrack_jax.video.overlay import track_color

WHAT = {
    "identities": "each mask goes to the one track of the object it lies on: split tracks merged, mixed cut",
    "classes": "each track gets the class of the object on which it lies most",
    "masks": "each mask that lies on an object becomes its true mask",
    "missed": "objects and frames on which no mask lies are filled in with the true masks",
    "false": "masks of nothing, tracks of nothing and second tracks of an object are removed",
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


def write_page(path, diagnosis, ground_truth, results, names, frames_root=None):
    """Writes the page of a `Diagnosis`; it appears complete or not at all.

    Args:
      path: where.
      diagnosis, ground_truth, results: what `diagnose` returned and took.
      names: what to call the two files on the page.
      frames_root: folder of the frames; where an image is not found, masks are drawn on grey and the page
        says so.
    """
    write_text(path, make_page(diagnosis, ground_truth, results, names, frames_root))


def make_page(diagnosis, ground_truth, results, names, frames_root=None):
    """The text of the page, see `write_page`."""
    report = diagnosis.report
    objects, tracks, missing = _pictures(diagnosis, ground_truth, results, frames_root)
    labels = {name: (KINDS[name].capitalize(), _TITLE[name]) for name in CORRECTIONS}
    body = [
        "<h1>Why is AP not higher?</h1>",
        f'<p class="quiet">{escape(names[1])} scored on {escape(names[0])}</p>',
        f'<p class="lead">{escape(report["summary"])}</p>',
        '<div class="big">',
        *(f"<div><b>{_number(report[name])}</b>{name}</div>" for name in ("AP", "AP50")),
        f"<div><b>{len(ground_truth['videos'])}</b>videos</div>",
        f"<div><b>{len(ground_truth['annotations'])}</b>objects</div>",
        f"<div><b>{len(results)}</b>predicted tracks</div></div>",
        *(f'<p class="note">{escape(note)}</p>' for note in report["notes"]),
        "<h2>What each kind of error costs</h2>",
        "<p>AP that is gained when the ground truth is put in for one kind of error, and all else stays.</p>",
        plots.gains_bars(report["gains"], labels),
        f'<p class="quiet">At IoU 0.5 alone: {_gains50(report)}. All five together: AP '
        f"{_number(report['corrected']['all'])}. Gains do not add up: a track may have several errors.</p>",
        "<h2>Where it is lost</h2>",
        "<p>Gains by size, length and occlusion of the objects, and by category (fewest AP first). "
        "Darker: more to gain.</p>",
        _table(report),
        "<h2>Precision and recall</h2>",
        "<p>Mean over the categories, one curve for each IoU threshold; AP is the mean of the ten.</p>",
        plots.precision_recall(diagnosis.precision),
        "<h2>Can the scores be trusted?</h2>",
        "<p>Of the tracks with a score, the share that hits an object of their class at IoU ≥ 0.5. "
        "On the dashed line a score is a probability; below it, tracks are too sure.</p>",
        plots.calibration(report["calibration"]),
        "<h2>Worst objects</h2>",
        "<p>Objects whose best track of their class overlaps least. True masks above in white; below, the "
        "tracks that lie on the object, a colour each: a new colour is another identity.</p>",
        *([f'<p class="note">{escape(missing)}</p>'] if missing else []),
        *(objects or ["<p>None.</p>"]),
        "<h2>Worst tracks</h2>",
        "<p>The highest scores that hit nothing. Above in white, what they lie on.</p>",
        *(tracks or ["<p>None.</p>"]),
        "<h2>What is meant</h2>",
        f"<p>A mask lies on the object with which its IoU is highest in that frame, from {LIES_ON} on, "
        "whatever its class. Each correction changes one thing:</p><dl>",
        *(f"<dt>{KINDS[name].capitalize()}</dt><dd>{WHAT[name]}.</dd>" for name in CORRECTIONS),
        "</dl><p class='quiet'>Hidden: frames between first and last sight without a mask, or with one "
        "below half of the object's median area. A prediction that matches nothing counts in the bucket of "
        "its own masks.</p>",
    ]
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report["summary"])}'
    head += '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
    return f"{head}<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"


_TITLE = {
    "identities": "identities corrected",
    "classes": "classes corrected",
    "masks": "masks corrected",
    "missed": "missed objects added",
    "false": "false tracks removed",
}


def _number(value):
    return "–" if value is None else f"{value:.3f}"


def _signed(gain):
    return f"{gain:+.3f}".replace("-", "−")


def _gains50(report):
    gains = report["gains50"].items()
    return ", ".join(f"{name} {'–' if gain is None else _signed(gain)}" for name, gain in gains)


def _table(report):
    """AP and gains of buckets and categories; the background of a cell is its gain."""
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


def _table_row(name, row, most):
    cells = [f"<td>{row['labels']}</td><td>{_number(row['AP'])}</td>"]
    for gain in row["gains"].values():
        if gain is None:
            cells.append("<td>–</td>")
            continue
        shade = max(gain, 0) / most if most > 0 else 0
        color = f"rgba(42,111,187,{0.5 * shade:.2f})" if gain >= 0 else "rgba(192,80,77,0.15)"
        cells.append(f'<td style="background:{color}">{_signed(gain)}</td>')
    return f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>"


def _pictures(diagnosis, ground_truth, results, frames_root):
    """(figures of objects, figures of tracks, a line on images that are not there or None)."""
    videos = {video["id"]: video for video in ground_truth["videos"]}
    category = {c["id"]: str(c.get("name", c["id"])) for c in ground_truth["categories"]}
    root = None if frames_root is None else Path(frames_root)
    shown = missing = 0
    figures = ([], [])
    for place, items in enumerate((diagnosis.worst_objects, diagnosis.worst_tracks)):
        for item in items:
            video = videos[item["video_id"]]
            labels = [item["label"]] if "label" in item else item["labels"]
            tracks = [results[i] for i in item["tracks"][:TRACKS]]
            true = [ground_truth["annotations"][i] for i in labels]
            uri, count, lost = draw_strip(video, true, tracks, item["frames"], root)
            shown, missing = shown + count, missing + lost
            figures[place].append(_figure(item, uri, tracks, category, video))
    line = None
    if missing:
        where = f"below {root}" if root is not None else "(no folder of frames is known)"
        line = f"{missing} of the {shown} frames shown here were not found {where}; masks are drawn on grey. "
        line += "Name the folder that the annotations' file_names are relative to with --frames."
    return *figures, line


def _figure(item, uri, tracks, category, video):
    title = f"{item['category']}, " + (f"IoU {item['iou']:.2f}" if "iou" in item else f"{item['score']:.2f}")
    legend = "".join(
        f'<span><span class="swatch" style="background:rgb{track_color(i)}"></span>'
        f"{escape(category[track['category_id']])} {track['score']:.2f}</span>"
        for i, track in enumerate(tracks)
    )
    if not tracks:
        legend = " no track lies on it"
    elif len(item["tracks"]) > len(tracks):
        legend += f" and {len(item['tracks']) - len(tracks)} more"
    frames = f"frames {item['frames'][0]}–{item['frames'][-1]}"
    where = escape(f"video {video['id']}, {frames}")
    return (
        f"<figure><figcaption><b>{escape(title)}</b>: {escape(item['reason'])}<br>{where} ·{legend}"
        f'</figcaption><img src="{uri}" alt="{escape(title)}, {where}"></figure>'
    )
