"""The files of an evaluation: ground truth, results in the server's format, metrics."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from masktrack_jax.data.json_files import read_labels, write_json
from masktrack_jax.data.labels import LabelsFile
from masktrack_jax.evaluation.identity import HEADLINE
from masktrack_jax.evaluation.overlaps import NO_LABELS
from masktrack_jax.evaluation.vis_ap import STATISTICS
from masktrack_jax.runtime.errors import UserError, printable


def read_ground_truth(path: str | Path) -> LabelsFile:
    """The annotations in a file that has labels. Raises UserError."""
    ground_truth = read_labels(path)
    if not ground_truth.get("annotations"):
        raise UserError(f"{path}: {NO_LABELS}")
    return ground_truth


def write_results(path: str | Path, tracks: Sequence[Mapping[str, object]]) -> None:
    """Write tracks atomically in the format of the servers.

    Args:
      path: path of the results file.
      tracks: list of `{video_id, category_id, score, segmentations}`, with one compressed RLE or None for
        each frame, counts as str or bytes; NumPy numbers are allowed. Other keys, such as `track_id`, are
        written too; the servers and our scorer ignore them.
    """
    write_json(path, tracks, indent=None)


def write_metrics(path: str | Path, metrics: dict[str, Any]) -> None:
    """Write metrics atomically as indented json."""
    write_json(path, metrics, indent=1)


def format_table(metrics: Mapping[str, Any]) -> str:
    """Format metrics as a table: the twelve numbers, identity metrics if any, and a row per category."""
    lines = ["  ".join(f"{name:>6}" for name in STATISTICS), _row(metrics, STATISTICS)]
    identity = metrics.get("identity")
    if identity:
        title = f"identity of tracks with score ≥ {identity['score_threshold']:g}"
        lines += ["", title, "  ".join(f"{name:>6}" for name in HEADLINE), _row(metrics, HEADLINE)]
    columns = ["AP", "AP50", "AP75", "AR1", "AR10"]
    per_category = {printable(name): row for name, row in metrics["per_category"].items()}
    width = max([len("category"), *map(len, per_category)])
    lines += ["", f"{'category':<{width}}  " + "  ".join(f"{name:>6}" for name in columns)]
    lines += [f"{name:<{width}}  {_row(row, columns)}" for name, row in per_category.items()]
    return "\n".join(lines)


def _row(values: Mapping[str, Any], names: Iterable[str]) -> str:
    cells = [values.get(name) for name in names]
    texts = ["–" if cell is None else str(cell) if isinstance(cell, int) else f"{cell:.3f}" for cell in cells]
    return "  ".join(f"{text:>6}" for text in texts)
