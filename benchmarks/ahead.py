"""Compiles inference and the training step for accelerators that are not here, and collects rows to compare.

    python -m benchmarks.ahead --config configs/masktrack_r50_fpn_youtubevis2019.py --rows ahead.jsonl \
        --label before --target v5e:2x2 --target h100
    python -m benchmarks.ahead --rows ahead.jsonl

Each target is planned by `masktrack_jax.plan` in its own process, in bfloat16: 16 frames a call of `detect`,
and 8 pairs a training step. Its numbers are appended to the file as one JSON line for each program, and the
table of all rows in the file is printed. The two compilers do not mix well: with --python TARGET=PYTHON a
target is planned by an interpreter of its own. Times are estimates, see docs/plan.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH = {"detect": 16, "train": 8}
KEPT = (
    "batch", "bucket", "dtype", "fits", "hbm_bytes", "flops", "seconds", "straight_seconds",
    "by_bytes_seconds", "loop_turns", "kernels", "straight_kernels", "parts", "unknown", "frames_per_second",
    "pairs_per_second", "hours", "compile_seconds",
)  # fmt: skip


def main() -> None:
    """Plan the targets, if any are given, and print the table."""
    arguments = parse_arguments()
    pythons = dict(text.split("=", 1) for text in arguments.python)
    rows = Path(arguments.rows)
    for target in arguments.target:
        python = pythons.get(target, sys.executable)
        for program in arguments.program:
            numbers = plan(python, arguments, target, program)
            row = {"label": arguments.label, "target": target, "program": program}
            row |= {key: numbers[key] for key in KEPT if key in numbers}
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(*table([json.loads(line) for line in rows.read_text().splitlines()]), sep="\n")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="configs/masktrack_r50_fpn_youtubevis2019.py")
    parser.add_argument("--rows", required=True, help="file of JSON lines to append to")
    parser.add_argument("--label", default="after", help="name of this state of the code")
    parser.add_argument("--target", action="append", default=[], help="see python -m masktrack_jax.plan")
    parser.add_argument("--program", nargs="+", choices=tuple(BATCH), default=list(BATCH))
    parser.add_argument(
        "--frames", type=int, default=61845, help="labelled frames (default: YouTube-VIS 2019)"
    )
    parser.add_argument("--python", action="append", default=[], help="TARGET=PYTHON")
    parser.add_argument("--hlo", help="folder for the compiled programs")
    return parser.parse_args()


def plan(python: str, arguments: argparse.Namespace, target: str, program: str) -> dict[str, Any]:
    """Return the numbers of one program, planned in another process."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "plan.json"
        flags = {
            "config": arguments.config,
            "target": target,
            "program": program,
            "batch": BATCH[program],
            "classes": 40,
            "frames": arguments.frames,
            "config.model.dtype": "bfloat16",
            "json": output,
        }
        if arguments.hlo:
            flags["hlo"] = Path(arguments.hlo) / arguments.label
        command = [
            python,
            "-m",
            "masktrack_jax.plan",
            *(f"--{name}={value}" for name, value in flags.items()),
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "MASKTRACK_CACHE": "off"}
        subprocess.run(command, env=environment, check=True)
        return json.loads(output.read_text())[program]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as a table in Markdown, programs and targets together."""
    heads = (
        "target",
        "program",
        "code",
        "ms",
        "outside loops",
        "turns read back",
        "kernels",
        "GiB",
        "a second",
    )
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * 3 + ['---:'] * 6)} |"]
    order = {(row["target"], row["program"]): None for row in rows}
    for key in order:
        for row in (row for row in rows if (row["target"], row["program"]) == key):
            unit = "frames" if row["program"] == "detect" else "pairs"
            cells = [*key, row["label"], *_numbers(row), f"{row.get(f'{unit}_per_second', 0):,.0f} {unit}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _numbers(row: dict[str, Any]) -> list[str]:
    size = f"{row['hbm_bytes'] / 2**30:.2f}"
    if "seconds" not in row:
        return ["does not fit", "", "", "", size]
    times = [f"{row[key] * 1e3:.1f}" for key in ("seconds", "straight_seconds")]
    return [*times, f"{row['loop_turns']:,.0f}", f"{row['kernels']:,.0f}", size]


if __name__ == "__main__":
    main()
