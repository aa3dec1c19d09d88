"""Everything recorded against everything computed, as the table of docs/goldens.md:

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

Made by `python -m tests.goldens > docs/goldens.md`; `tests/goldens/README.md` says what was recorded.
*mm* is mmtracking 0.14.0, *orig* the authors' MaskTrackRCNN repository (`orig_…`), both with the same made-up
weights, which came here through `masktrack_jax.interop`.

Differences are the largest absolute ones over all frames and values, in the quantity's own unit, unless a
relative one is named; "unequal" counts entries. Where a tolerance is 0, equal means equal. The recordings are
float32 on a CPU. So are we in the first column of differences: there both sides' noise adds up, and in the
authors' form a box whose corner lies within it of a whole pixel has its whole mask moved. In the second one
the network ran in float64 here, which leaves the recording's own noise.

What is above its tolerance in both is of that noise, as far as we can tell. The score is one detection's: it
changes by 0.08 with a pixel of its proposal's upper edge, so 0.0015 px are enough, and recorded proposals
lie up to 0.006 px from ours. A parameter that a step changes by its last digit alone is as recorded in
float32 only (`SGD step`).

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
