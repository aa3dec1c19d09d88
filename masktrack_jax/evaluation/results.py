"""The json files of an evaluation: ground truth, results in the server's format, metrics."""

import gc
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from masktrack_jax.evaluation.identity import HEADLINE
from masktrack_jax.evaluation.overlaps import NO_LABELS
from masktrack_jax.evaluation.vis_ap import STATISTICS
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole


def read_ground_truth(path):
    """The dict of a YouTube-VIS annotation file that has labels.

    Raises:
      UserError: no such file, no json, or the public file of a split without labels.
    """
    ground_truth = read_json(path)
    if not isinstance(ground_truth, dict):
        raise UserError(f"{path}: expected a json object with videos, categories and annotations")
    if not ground_truth.get("annotations"):
        raise UserError(f"{path}: {NO_LABELS}")
    return ground_truth


def read_results(path):
    """The list of tracks of a results file; `evaluate_vis` checks the tracks themselves."""
    tracks = read_json(path)
    if not isinstance(tracks, list):
        raise UserError(f"{path}: expected a json list of tracks, got {type(tracks).__name__}")
    return tracks


def write_results(path: str | Path, tracks: list[dict[str, Any]]) -> None:
    """Write tracks atomically in the format of the servers.

    Args:
      path: of the results file.
      tracks: list of `{video_id, category_id, score, segmentations}`, with one compressed RLE or None for
        each frame, counts as str or bytes; NumPy numbers are allowed. Other keys, such as `track_id`, are
        written too; the servers and our scorer ignore them.
    """
    write_json(path, tracks, indent=None)


def write_metrics(path: str | Path, metrics: dict[str, Any]) -> None:
    """Write metrics atomically as indented json."""
    write_json(path, metrics, indent=1)


def write_json(path, content, indent):
    """Writes json beside `path` and renames it, so that a reader never sees half a file."""
    try:
        # dumps, not dump: only the former runs in C.
        text = json.dumps(content, indent=indent, allow_nan=False, default=_plain)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not written, the content is not json ({error})") from error
    write_text(path, text)


def write_text(path, text):
    """Writes text beside `path` and renames it, so that a reader never sees half a file."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def format_table(metrics: Mapping[str, Any]) -> str:
    """Metrics as a table to print: the twelve numbers, identity metrics if any, a row for each category."""
    lines = ["  ".join(f"{name:>6}" for name in STATISTICS), _row(metrics, STATISTICS)]
    identity = metrics.get("identity")
    if identity:
        title = f"identity of tracks with score ≥ {identity['score_threshold']:g}"
        lines += ["", title, "  ".join(f"{name:>6}" for name in HEADLINE), _row(metrics, HEADLINE)]
    columns = ["AP", "AP50", "AP75", "AR1", "AR10"]
    width = max([len("category"), *(len(name) for name in metrics["per_category"])])
    lines += ["", f"{'category':<{width}}  " + "  ".join(f"{name:>6}" for name in columns)]
    lines += [f"{name:<{width}}  {_row(row, columns)}" for name, row in metrics["per_category"].items()]
    return "\n".join(lines)


def _row(values: Mapping[str, Any], names: Iterable[str]) -> str:
    cells = [values.get(name) for name in names]
    texts = ["–" if cell is None else str(cell) if isinstance(cell, int) else f"{cell:.3f}" for cell in cells]
    return "  ".join(f"{text:>6}" for text in texts)


def read_json(path, opened=None):
    """The content of a json file; `opened()` gives the text file where it is not simply the one at `path`.

    Raises:
      UserError: no such file, or no json.
    """
    try:
        with opened() if opened else open(path, encoding="utf-8") as file:
            return _load(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: broken json, line {error.lineno} column {error.colno}: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of a thousand digits, lists as deep
        raise UserError(f"{path}: broken json ({error})") from None


def _load(file):
    """`json.load` without the garbage collector, which would walk millions of new objects in vain."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.load(file)
    finally:
        if collecting:
            gc.enable()


def _plain(value):
    """Bytes of an RLE and NumPy scalars as json knows them."""
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r:.40}")
