"""The time of a compiled program: its operations, each times how often it runs, by part of the network."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from masktrack_jax.plan.costs import COLLECTIVES, READ_BACK, Cost, Costs
from masktrack_jax.plan.counts import Site, scopes
from masktrack_jax.plan.hlo import Operation, Program
from masktrack_jax.plan.targets import Target

# The part of an operation is that of the innermost scope of its path that is named here.
PARTS = {
    "backbone": "backbone",
    "features": "backbone",
    "fpn": "FPN",
    "rpn_head": "RPN",
    "propose": "proposals",
    "pool": "RoIAlign",
    **dict.fromkeys(("roi_align_forward", "roi_align_backward"), "RoIAlign"),  # kernels
    **dict.fromkeys(("box_head", "mask_head", "track_head", "classify", "embed"), "heads"),
    **dict.fromkeys(("mask_logits", "masks_and_embeddings"), "heads"),
    "detect": "detections",
    "optimizer": "optimizer",
}
ORDER = (
    "backbone", "FPN", "RPN", "proposals", "RoIAlign", "heads", "detections", "losses", "optimizer",
    "all-reduce", "loop control", "other",
)  # fmt: skip


class Loop(NamedTuple):
    """A loop of the compiled program."""

    part: str
    scope: str
    turns: float  # in all
    known: bool  # whether the compiler knows the number, so that no device asks for it
    measured: bool  # whether the number was found, by the compiler or here
    kernels: int  # of one turn, without inner loops
    seconds: float  # of all turns, without inner loops


class Item(NamedTuple):
    """The time of one operation, over all its runs."""

    seconds: float
    runs: float
    part: str
    text: str


class Estimate(NamedTuple):
    """What a program takes on a target."""

    seconds: float
    straight_seconds: float  # without loops
    parts: dict[str, float]
    kernels: float  # launched in all
    straight_kernels: int
    loops: list[Loop]
    items: list[Item]  # by descending time
    unknown: dict[str, float]  # operations without an estimate, and how often each kind runs
    by_bytes_seconds: float  # of operations that a TPU's compiler says nothing of, by the bytes they move

    @property
    def loop_turns(self) -> float:
        """Turns of the loops whose number only the device knows."""
        return sum(loop.turns for loop in self.loops if not loop.known)


def part_of(path: str, opcode: str = "") -> str:
    """The part of the network that an operation with this path of scopes belongs to."""
    if opcode in COLLECTIVES:
        return "all-reduce"
    if not path:
        return "other"
    for name in reversed(re.findall(r"[\w.]+", path)):  # "jvp(fpn)" is of the FPN
        if part := PARTS.get(name.rpartition(".")[2]):
            return part
    if "/" not in path:  # an argument, or an operation of the compiler
        return "other"
    return "losses" if "jvp(" in path else "optimizer"


def site_of(operation: Operation, kind: str) -> Site:
    """The site of `counts` that a loop or conditional of the compiled program comes from."""
    tokens = re.sub(r"\([^()]*\)", "", operation.scope).split("/")
    around = tokens[: len(tokens) - 1].count("while")
    return Site(scopes(operation.scope), around, kind)


def kernel_site(operation: Operation) -> Site:
    """The site of `counts` that a call of a hand-written kernel comes from."""
    around = operation.scope.rpartition("/")[0]
    return Site(scopes(around), around.split("/").count("while"), "cycles")


class _Walk:
    """Adds up a program from its entry into its loops."""

    def __init__(self, program: Program, costs: Costs, sites: Mapping[Site, float], target: Target) -> None:
        self.program, self.costs, self.sites, self.target = program, costs, sites, target
        self.parts: dict[str, float] = defaultdict(float)
        self.items: list[Item] = []
        self.loops: list[Loop] = []
        self.unknown: dict[str, float] = defaultdict(float)
        self.kernels = self.by_bytes = self.straight = 0.0
        self.loops_of = {stated: Counter[Site]() for stated in (False, True)}
        for _, operation in program.all():
            if operation.opcode == "while":
                self.loops_of[trips(operation) is not None][site_of(operation, "while")] += 1
        self.calls_of = Counter(kernel_site(op) for _, op in program.all() if op.opcode == "custom-call")

    def computation(self, name: str, runs: float, inside: bool, default: str) -> tuple[float, int]:
        """Add a computation that runs `runs` times; returns the time and the kernels of one run."""
        total, kernels = 0.0, 0
        for operation in self.program.computations[name]:
            part = part_of(operation.scope, operation.opcode)
            part = default if part == "other" and default else part
            cost = self.costs.of(operation, name)
            if cost.seconds is None and (cycles := self.sites.get(site := kernel_site(operation))):
                each = cycles / self.calls_of[site] / max(runs, 1)
                cost = Cost(each / self.target.clock)
            if cost.seconds is None and runs:
                kind = operation.target or operation.opcode
                self.unknown[f"{kind} ({part})"] += runs
            seconds = cost.seconds or 0.0
            self.by_bytes += seconds * runs * cost.by_bytes
            total, kernels = total + seconds, kernels + cost.kernels
            self.kernels += runs * cost.kernels
            if seconds:
                self.parts[part] += seconds * runs
                self.items.append(Item(seconds * runs, runs, part, _title(operation)))
            if not inside:
                self.straight += seconds * runs
            for inner, times in self.called(operation, runs):
                self._descend(operation, inner, times, runs, inside, part)
        return total, kernels

    def _descend(
        self, operation: Operation, inner: str, times: float, runs: float, inside: bool, part: str
    ) -> None:
        if operation.opcode != "while":
            self.computation(inner, times, inside, part)
            return
        seconds, kernels = self.computation(inner, times, True, part)
        if inner in operation.called["condition"]:
            return
        counted = self.counted(operation)
        known = trips(operation) is not None or (counted is not None and not counted[0])
        if not known and self.target.platform == "gpu":
            self.parts["loop control"] += READ_BACK * times
        scope = "/".join(scopes(operation.scope))
        measured = known or counted is not None
        self.loops.append(Loop(part, scope, times, known, measured, kernels, seconds * times))

    def called(self, operation: Operation, runs: float) -> Iterator[tuple[str, float]]:
        """The computations that an operation runs, and how often in all."""
        called = operation.called
        if operation.opcode == "while":
            turns = self.turns(operation, runs)
            yield from ((called[key][0], turns) for key in ("condition", "body"))
        elif operation.opcode == "conditional":
            if self.target.platform == "gpu":
                self.parts["loop control"] += READ_BACK * runs
            branches = called.get("branch_computations") or [
                *called.get("false_computation", []),
                *called.get("true_computation", []),
            ]
            entered = self.sites.get(site_of(operation, "entered"), 0)
            for number, name in enumerate(branches):
                share = 1 / len(branches)
                if entered:
                    share = self.sites.get(site_of(operation, f"branch {number}"), 0) / entered
                yield name, runs * share
        elif operation.opcode in ("call", "async-start"):
            for key in ("to_apply", "calls", "called_computations"):
                yield from ((name, runs) for name in called.get(key, []))

    def turns(self, operation: Operation, runs: float) -> float:
        """How often the body of a loop runs in all; once for each start if nobody knows."""
        if (known := trips(operation)) is not None:
            return known * runs
        counted = self.counted(operation)
        return runs if counted is None else sum(counted) / self.loops_of[False][site_of(operation, "while")]

    def counted(self, operation: Operation) -> tuple[float, float] | None:
        """Turns of the loops at a site: data-dependent ones, and those of a fixed length.

        The TPU compiler does not state the lengths. Another compiler does, and then those are left out here.
        """
        site = site_of(operation, "while")
        fixed = site._replace(kind="scan")
        if site not in self.sites and fixed not in self.sites:
            return None
        stated = self.loops_of[True][site] > 0
        return self.sites.get(site, 0.0), 0.0 if stated else self.sites.get(fixed, 0.0)


def estimate(program: Program, sites: Mapping[Site, float], target: Target, devices: int) -> Estimate:
    """Add up a compiled program; `sites` are the counts of the same program, see `counts.count`."""
    walk = _Walk(program, Costs(program, target, devices), sites, target)
    _, straight_kernels = walk.computation(program.entry, 1, False, "")
    parts = {part: walk.parts[part] for part in ORDER if walk.parts.get(part)}
    return Estimate(
        seconds=sum(parts.values()),
        straight_seconds=walk.straight,
        parts=parts,
        kernels=walk.kernels,
        straight_kernels=straight_kernels,
        loops=sorted(walk.loops, key=lambda loop: -loop.seconds),
        items=sorted(walk.items, reverse=True),
        unknown=dict(walk.unknown),
        by_bytes_seconds=walk.by_bytes,
    )


def trips(operation: Operation) -> int | None:
    """The number of turns of a loop, if the compiler states it."""
    found = operation.backend.get("known_trip_count", {})
    return int(found["n"]) if "n" in found else None


def _title(operation: Operation) -> str:
    shape = operation.shapes[0] if operation.shapes else None
    size = f"{shape.dtype}[{','.join(map(str, shape.dims))}]" if shape else ""
    path = "/".join(scopes(operation.scope)[-3:])
    return f"{operation.target or operation.opcode} {size} {path}".strip()
