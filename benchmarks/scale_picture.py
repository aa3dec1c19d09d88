"""Draws the picture of benchmarks/scale.py: one small plot per sweep, as hand-written SVG."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.common import Times

WIDTH, HEIGHT, LEFT, TOP = 240, 190, 46, 30  # size of a small plot, and the origin of its axes
INK, QUIET, LINE = "#1d2733", "#66727f", "#2a6fbb"
COLUMNS = 3


def draw(sweeps: "Mapping[str, Mapping[int, Times]]") -> str:
    """Plot processor milliseconds over the number for each sweep, both axes from 0, as SVG."""
    rows = -(-len(sweeps) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}" '
        'font-family="sans-serif" role="img" aria-label="Processor time by size">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (name, sweep) in enumerate(sweeps.items()):
        row, column = divmod(place, COLUMNS)
        parts.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT})">')
        parts += _plot(name, {number: times["cpu_seconds"] * 1e3 for number, times in sweep.items()})
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _plot(name: str, costs: Mapping[int, float]) -> list[str]:
    """Draw one small plot; the dotted line connects the first and the last point."""
    right, bottom = WIDTH - 16, HEIGHT - 34
    widest, highest = max(costs), max(costs.values()) * 1.08

    def at(number: float, cost: float) -> tuple[float, float]:
        return LEFT + (right - LEFT) * number / widest, bottom - (bottom - TOP) * cost / highest

    points = [at(*point) for point in costs.items()]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    (x1, y1), (x2, y2) = points[0], points[-1]
    return [
        _text(LEFT, 18, name, INK, 13, "start"),
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="{QUIET}"/>',
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{QUIET}" stroke-dasharray="2 4"/>',
        f'<polyline points="{joined}" fill="none" stroke="{LINE}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{LINE}"/>' for x, y in points),
        *(_text(x, bottom + 16, f"{n:,}", QUIET) for (x, _), n in list(zip(points, costs))[1:-1]),
        _text(x2 + 12, bottom + 16, f"{widest:,}", QUIET, anchor="end"),
        _text(LEFT - 6, bottom, "0", QUIET, anchor="end"),
        _text(LEFT - 6, y2 + 4, f"{costs[max(costs)]:.0f} ms", QUIET, anchor="end"),
    ]


def _text(x: float, y: float, text: str, fill: str, size: int = 10, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
