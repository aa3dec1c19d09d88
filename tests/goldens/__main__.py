"""Compare all recorded values with computed ones, as the table of docs/goldens.md:

python -m tests.goldens > docs/goldens.md
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles in half the time

from contextlib import redirect_stdout
from itertools import product

from . import inference, results, training, training_steps, units
from .recorded import Row

HEAD = """# Recorded numbers of the published code, and ours

Made by `python -m tests.goldens > docs/goldens.md`; `tests/goldens/README.md` describes the recordings.
*mm* is mmtracking 0.14.0, *orig* the authors' MaskTrackRCNN repository (`orig_…`). Both ran with the same
made-up weights, which our network loads through `masktrack_jax.interop`.

Differences are the largest absolute ones over all frames and values, in the unit of the quantity, unless
the row names a relative one; "unequal" counts entries. A tolerance of 0 requires equality. The recordings
are float32 on a CPU. The first column of differences is our float32 run: the rounding errors of both sides
add up, and in the authors' form a box whose corner lies within that error of a whole pixel moves its whole
mask. The second column is our float64 run, which leaves only the rounding errors of the recording.

Rows above their tolerance in both columns come from these rounding errors, as far as we can tell. The score
belongs to one detection: it changes by 0.08 per pixel of its proposal's upper edge, so 0.0015 px are
enough, and recorded proposals lie up to 0.006 px from ours. A parameter that a step changes only in its
last digit equals the recording in float32 only (`SGD step`).

| recording | quantity | tolerance | float32 | float64 | |
| --- | --- | ---: | ---: | ---: | --- |
"""


def inference_rows() -> Iterator[Row]:
    for size in inference.SIZES:
        yield from inference.mmtracking_rows(size)
        for setting in ("default", "loose"):
            yield from inference.original_rows(size, setting)

    for size, setting in product(inference.SIZES, ("default", "loose")):
        yield from results.results_rows(size, setting)


def training_rows(*parts: Callable[[str], Iterator[Row]]) -> Iterator[Row]:
    for form, part in product(("mm", "orig"), parts):
        yield from part(form)


def all_rows() -> Iterator[Row]:
    yield from units.rows()
    yield from inference_rows()
    yield from training_rows(training.detail_rows, training_steps.step_rows, training_steps.trajectory_rows)


def network_rows() -> Iterator[Row]:
    """Rows that depend on a network's rounding."""
    yield from inference_rows()
    yield from training_rows(training_steps.step_rows, training_steps.trajectory_rows)


def rows_in_float64() -> list[Row]:
    """`network_rows` from a process that computes in float64."""
    command = [sys.executable, "-m", "tests.goldens", "--as-json"]
    done = subprocess.run(
        command, env=os.environ | {"JAX_ENABLE_X64": "1"}, stdout=subprocess.PIPE, check=True, text=True
    )
    return [Row(*values) for values in json.loads(done.stdout)]


def table(rows: Iterable[Row], exact: Iterable[Row]) -> Iterator[str]:
    """Lines of the table; `exact` are rows in float64, where there are any."""
    exact = {(row.recording, row.quantity): row.difference for row in exact}
    for row in rows:
        other = exact.get((row.recording, row.quantity))
        cells = [row.tolerance, row.difference, other]
        cells = ["" if x is None else "0" if x == 0 else f"{x:.1e}" for x in cells]
        above = "" if row.difference <= row.tolerance else "above"
        yield f"| {row.recording} | {row.quantity} | {' | '.join(cells)} | {above} |"


def main(arguments: Sequence[str]) -> None:
    with redirect_stdout(sys.stderr):
        if arguments:
            rows = list(network_rows())
        else:
            rows, exact = list(all_rows()), rows_in_float64()
    if arguments:
        print(json.dumps([(*row[:3], float(row.difference)) for row in rows]))
    else:
        print(HEAD, end="")
        print(*table(rows, exact), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
