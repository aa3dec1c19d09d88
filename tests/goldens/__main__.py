"""Everything recorded against everything computed, as the table of docs/goldens.md:

python -m tests.goldens > docs/goldens.md
"""

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # as the tests

from contextlib import redirect_stdout
from itertools import product

from . import inference, training, units

HEAD = """# Recorded numbers of the published code, and ours

Made by `python -m tests.goldens > docs/goldens.md`; `tests/goldens/README.md` says what was recorded.
*mm* is mmtracking 0.14.0, *orig* the authors' MaskTrackRCNN repository (`orig_…`), both with the same made-up
weights, which came here through `masktrack_jax.interop`. float32 on a CPU on both sides.

Differences are the largest absolute ones over all frames and values, in the quantity's own unit, unless a
relative one is named; "unequal" counts entries. Where a tolerance is 0, equal means equal.

| recording | quantity | tolerance | largest difference | |
| --- | --- | ---: | ---: | --- |
"""


def all_rows():
    yield from units.rows()
    for size in inference.SIZES:
        yield from inference.mmtracking_rows(size)
        for setting in ("default", "loose"):
            yield from inference.original_rows(size, setting)
            yield from inference.results_rows(size, setting)
    for form, part in product(("mm", "orig"), ("detail_rows", "step_rows", "trajectory_rows")):
        yield from getattr(training, part)(form)


def main():
    rows = []
    with redirect_stdout(sys.stderr):
        for row in all_rows():
            print(row)
            rows.append(row)
    print(HEAD, end="")
    for row in rows:
        good = row.difference <= row.tolerance
        print(
            f"| {row.recording} | {row.quantity} | {row.tolerance:.1e} | {row.difference:.1e} "
            f"| {'' if good else '**above**'} |".replace("0.0e+00", "0")
        )
    return 0 if all(row.difference <= row.tolerance for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
