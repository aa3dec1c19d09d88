"""SVG plots, mainly for the diagnosis page, written by hand to avoid a dependency on a plotting library."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from masktrack_jax.evaluation.vis_ap import IOU_THRESHOLDS, RECALLS

INK, QUIET, GRID = "#1d2733", "#66727f", "#e4e8ec"
GOOD, BAD = "#2a6fbb", "#c0504d"
WIDTH = 720


def gains_bars(gains: Mapping[str, float | None], labels: Mapping[str, tuple[str, str]]) -> str:
    """Horizontal bars of name → gain (None counts as 0), with `labels`, name → (title, subtitle)."""
    row, left, right = 46, 210, 70
    values = {name: gain or 0.0 for name, gain in gains.items()}
    low, high = min(0, *values.values()), max(0.01, *values.values())
    span = WIDTH - left - right

    def x(value: float) -> float:
        return left + span * (value - low) / (high - low)

    parts = []
    for i, (name, gain) in enumerate(values.items()):
        y = i * row + 6
        start, end = sorted((x(0), x(gain)))
        title, subtitle = labels[name]
        parts += [
            _text(left - 14, y + 14, title, anchor="end", weight=600),
            _text(left - 14, y + 30, subtitle, anchor="end", size=12, fill=QUIET),
            f'<rect x="{start:.1f}" y="{y + 4}" width="{max(end - start, 1):.1f}" height="24" rx="2" '
            f'fill="{GOOD if gain >= 0 else BAD}"/>',
            _text(end + 8, y + 21, f"{gain:+.3f}".replace("-", "−"), weight=600),
        ]
    parts.append(_line(x(0), 0, x(0), row * len(values), QUIET))
    return _svg(row * len(values) + 4, parts, "Gain of AP from each correction")


def precision_recall(precision: np.ndarray) -> str:
    """Precision-recall curves of (T, R) precision at `IOU_THRESHOLDS` and `RECALLS`, each with its AP."""
    plot = _Plot("recall", "precision")
    parts = plot.frame()
    for t, row in enumerate(precision):
        points = " ".join(f"{plot.x(r):.1f},{plot.y(p):.1f}" for r, p in zip(RECALLS, row))
        color = _ramp(t / (len(precision) - 1))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        y = plot.top + 26 + 24 * t
        parts.append(_line(plot.right + 28, y - 4, plot.right + 52, y - 4, color, 3))
        parts.append(_text(plot.right + 60, y, f"IoU {IOU_THRESHOLDS[t]:.2f}", size=13))
        parts.append(_text(WIDTH - 4, y, f"{row.mean():.3f}", size=13, anchor="end", weight=600))
    parts.append(_text(WIDTH - 4, plot.top + 4, "AP", size=12, anchor="end", fill=QUIET))
    return _svg(plot.height, parts, "Precision over recall at ten IoU thresholds")


def calibration(rows: Sequence[dict[str, Any]]) -> str:
    """Share of correct tracks over the score: a dot for each bin, with an area that shows its tracks."""
    plot = _Plot("score", "share of correct tracks")
    parts = plot.frame()
    ideal = _line(plot.x(0), plot.y(0), plot.x(1), plot.y(1), QUIET)
    parts.append(ideal.replace("/>", ' stroke-dasharray="5 5"/>'))
    filled = [row for row in rows if row["tracks"]]
    points = " ".join(f"{plot.x(r['mean_score']):.1f},{plot.y(r['right']):.1f}" for r in filled)
    parts.append(f'<polyline points="{points}" fill="none" stroke="{GOOD}" stroke-width="2"/>')
    most = max((row["tracks"] for row in filled), default=1)
    for row in filled:
        x, y = plot.x(row["mean_score"]), plot.y(row["right"])
        radius = 4 + 12 * (row["tracks"] / most) ** 0.5
        title = f"<title>{row['tracks']} tracks</title>"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{GOOD}" fill-opacity="0.35" '
            f'stroke="{GOOD}">{title}</circle>'
        )
    parts.append(_text(plot.right + 28, plot.top + 22, "score", size=12, fill=QUIET))
    parts.append(_text(plot.right + 120, plot.top + 22, "tracks", size=12, fill=QUIET, anchor="end"))
    parts.append(_text(WIDTH - 4, plot.top + 22, "correct", size=12, fill=QUIET, anchor="end"))
    for i, row in enumerate(rows):
        y = plot.top + 46 + 22 * i
        right = "–" if row["right"] is None else f"{row['right']:.0%}"
        parts.append(_text(plot.right + 28, y, f"{row['low']:.1f}–{row['high']:.1f}", size=13))
        parts.append(_text(plot.right + 120, y, str(row["tracks"]), size=13, anchor="end"))
        parts.append(_text(WIDTH - 4, y, right, size=13, anchor="end", weight=600))
    return _svg(plot.height, parts, "Share of correct tracks over the score")


def curves(
    series: Mapping[str, np.ndarray], x_name: str, y_name: str, ends: tuple[float, float], title: str
) -> str:
    """A complete SVG file with a line for each name → points (n, 2), on axes from 0 to `ends` (x, y)."""
    plot = _Plot(x_name, y_name, ends)
    parts = plot.frame()
    for i, (name, points) in enumerate(series.items()):
        places = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in points)
        color, y = _ramp((i + 1) / (len(series) + 1)), plot.top + 26 + 24 * i
        parts.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(_line(plot.right + 28, y - 4, plot.right + 52, y - 4, color, 3))
        parts.append(_text(plot.right + 60, y, name, size=13))
    return _svg(plot.height, parts, title).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


class _Plot:
    """Axes from 0 to `ends` (x, y), with space for a legend on the right."""

    left, right, top, height = 52, 540, 12, 330

    def __init__(self, x_name: str, y_name: str, ends: tuple[float, float] = (1.0, 1.0)) -> None:
        self.x_name, self.y_name, self.bottom, self.ends = x_name, y_name, self.height - 46, ends

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * value / self.ends[0]

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * value / self.ends[1]

    def frame(self) -> list[str]:
        """Grid, ticks and labels of the axes."""
        parts = []
        across, up = (
            [f"{t:.1f}" if end <= 1 else f"{t:.0f}" for t in np.linspace(0, end, 6)] for end in self.ends
        )
        for part, x_text, y_text in zip(np.linspace(0, 1, 6), across, up):
            x, y = self.x(part * self.ends[0]), self.y(part * self.ends[1])
            parts.append(_line(x, self.top, x, self.bottom, GRID))
            parts.append(_line(self.left, y, self.right, y, GRID))
            parts.append(_text(x, self.bottom + 18, x_text, size=12, anchor="middle", fill=QUIET))
            parts.append(_text(self.left - 8, y + 4, y_text, size=12, anchor="end", fill=QUIET))
        middle = (self.left + self.right) / 2
        parts.append(_text(middle, self.height - 8, self.x_name, size=13, anchor="middle"))
        y = (self.top + self.bottom) / 2
        label = _text(14, y, self.y_name, size=13, anchor="middle")
        return [*parts, label.replace("<text ", f'<text transform="rotate(-90 14 {y:.1f})" ')]


def _ramp(share: float) -> str:
    """A colour from dark blue (0) over green to light orange (1), also ordered when converted to grey."""
    stops = np.array([[38, 44, 96], [36, 105, 160], [47, 160, 140], [150, 190, 70], [242, 170, 60]])
    position = share * (len(stops) - 1)
    color = [np.interp(position, np.arange(len(stops)), stops[:, c]) for c in range(3)]
    return "#" + "".join(f"{round(value):02x}" for value in color)


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    # Inside HTML an SVG needs no namespace; without it the page holds no URL.
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return "\n".join([head, *parts, "</svg>"])


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: int = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width}"/>'
    )


def _text(
    x: float, y: float, text: str, size: int = 14, anchor: str = "start", fill: str = INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
