"""Print a plan, and give it as a dict for JSON."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from masktrack_jax.plan.costs import peak_share
from masktrack_jax.plan.estimate import Estimate
from masktrack_jax.plan.targets import GIB, Target

TOP = 10  # operations to show
LOOPS = 8  # loops to show


class Plan(NamedTuple):
    """A program compiled for a target."""

    name: str  # "detect" or "train"
    target: Target
    batch: int  # frames of a call on one chip, or pairs of a step over all chips
    bucket: tuple[int, int]
    dtype: str
    compile_seconds: float
    memory: dict[str, float]  # bytes on each chip by use
    flops: float  # of products and convolutions on each chip, loops included
    estimate: Estimate | None  # None if it does not fit
    recipe: tuple[int, str]  # steps of the whole recipe, and where the number is from; 0: unknown

    @property
    def hbm_bytes(self) -> float:
        """Bytes needed on each chip."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether they are there."""
        return self.hbm_bytes <= self.target.memory

    @property
    def rate(self) -> float:
        """Frames a second of one chip, or pairs a second of all."""
        return self.batch / self.estimate.seconds if self.estimate and self.estimate.seconds else 0.0

    @property
    def hours(self) -> float:
        """Hours of the whole recipe, without evaluations and checkpoints."""
        return self.recipe[0] * self.estimate.seconds / 3600 if self.estimate else 0.0


def as_json(plan: Plan) -> dict[str, Any]:
    """The numbers of a plan."""
    found: dict[str, Any] = {
        "target": plan.target.title,
        "batch": plan.batch,
        "bucket": list(plan.bucket),
        "dtype": plan.dtype,
        "compile_seconds": plan.compile_seconds,
        "fits": plan.fits,
        "hbm_bytes": plan.hbm_bytes,
        "memory": plan.memory,
        "flops": plan.flops,
    }
    if estimate := plan.estimate:
        found |= {
            "seconds": estimate.seconds,
            "straight_seconds": estimate.straight_seconds,
            "loop_turns": estimate.loop_turns,
            "kernels": estimate.kernels,
            "straight_kernels": estimate.straight_kernels,
            "parts": estimate.parts,
            "loops": [loop._asdict() for loop in estimate.loops],
            "operations": [item._asdict() for item in estimate.items[:TOP]],
            "unknown": estimate.unknown,
            "by_bytes_seconds": estimate.by_bytes_seconds,
            "frames_per_second" if plan.name == "detect" else "pairs_per_second": plan.rate,
        }
        if plan.name == "train" and plan.recipe[0]:
            found |= {"steps": plan.recipe[0], "hours": plan.hours}
    return found


def lines(plan: Plan) -> Iterator[str]:
    """The plan in words."""
    target, height, width = plan.target, *plan.bucket
    what = f"{plan.batch} frames" if plan.name == "detect" else f"{plan.batch} pairs"
    chips = "on one chip" if plan.name == "detect" or target.chips == 1 else f"on {target.chips} chips"
    yield f"{plan.name}, {what} of {height}×{width} {chips} of {target.title}, {plan.dtype}"
    uses = ", ".join(f"{name} {size / GIB:.2f}" for name, size in plan.memory.items() if size > GIB / 1000)
    verdict = "fits" if plan.fits else "does NOT fit"
    yield f"  {verdict}: {plan.hbm_bytes / GIB:.2f} of {target.memory / GIB:.1f} GiB a chip ({uses})"
    if not (estimate := plan.estimate):
        return
    share = peak_share(plan.flops, estimate.seconds, target, plan.dtype)
    yield f"  {plan.flops / 1e9:,.0f} GFLOP a chip in products, {share:.0%} of the peak by this estimate"
    yield f"  {estimate.seconds * 1e3:.1f} ms, of it {estimate.straight_seconds * 1e3:.1f} outside loops:"
    for part, seconds in estimate.parts.items():
        yield f"    {part:<13}{seconds * 1e3:9.2f} ms {seconds / estimate.seconds:5.0%}"
    yield (
        f"  {estimate.kernels:,.0f} kernels, {estimate.straight_kernels:,} of them outside loops; "
        f"{estimate.loop_turns:,.0f} turns of loops whose end only the device knows"
    )
    yield from _loops(estimate, target.platform == "gpu")
    yield "  largest operations:"
    for item in estimate.items[:TOP]:
        times = f" in {item.runs:,.0f} runs" if item.runs > 1 else ""
        yield f"    {item.seconds * 1e3:8.2f} ms{times}  {item.part}: {item.text}"
    if estimate.by_bytes_seconds:
        yield (
            f"  {estimate.by_bytes_seconds * 1e3:.2f} ms of it are of operations that the compiler gives no "
            "time for: what moving their bytes takes"
        )
    if estimate.unknown:
        kinds = ", ".join(f"{runs:,.0f} × {kind}" for kind, runs in estimate.unknown.items())
        yield f"  NOT in the estimate, as nothing is known of their time: {kinds}"
    if plan.name == "detect":
        yield f"  {plan.rate:,.0f} frames/s a chip"
    else:
        yield f"  {plan.rate:,.1f} pairs/s on all chips"
        steps, source = plan.recipe
        yield f"  {plan.hours:.1f} hours for {steps:,} steps ({source})" if steps else f"  {source}"


def _loops(estimate: Estimate, read_back: bool) -> Iterator[str]:
    for loop in estimate.loops[:LOOPS]:
        note = " (the host reads when it ends)" if read_back and not loop.known else ""
        note = note if loop.measured else " (NOT MEASURED: one turn for each start is assumed)"
        yield (
            f"    {loop.turns:8,.0f} turns × {loop.kernels} kernels {loop.seconds * 1e3:8.2f} ms  "
            f"{loop.part}: {loop.scope}{note}"
        )
    if rest := estimate.loops[LOOPS:]:
        yield (
            f"    {sum(loop.turns for loop in rest):8,.0f} turns of {len(rest)} other loops "
            f"{sum(loop.seconds for loop in rest) * 1e3:8.2f} ms"
        )
