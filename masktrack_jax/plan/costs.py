"""The time of one operation of a compiled program on a target, in seconds.

A TPU's compiler writes its own estimate into the program, in cycles. For other targets an operation is one
kernel, and takes as long as its products or its bytes need, whichever is longer, and at least a launch.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from masktrack_jax.plan.hlo import Operation, Program, Shape
from masktrack_jax.plan.targets import Target

# Operations that run nothing: they name, reorder or wait for values.
FREE = frozenset(
    (
        *(
            "parameter",
            "constant",
            "iota",
            "tuple",
            "get-tuple-element",
            "bitcast",
            "partition-id",
            "replica-id",
        ),
        *(
            "while",
            "conditional",
            "call",
            "async-start",
            "async-update",
            "async-done",
            "copy-done",
            "send-done",
        ),
        *(
            "all-reduce-done",
            "all-gather-done",
            "collective-permute-done",
            "recv-done",
            "after-all",
            "domain",
        ),
        *("opt-barrier", "add-dependency"),
    )
)
# Copies that the TPU compiler starts early and waits for late, beside other work.
BESIDE = ("copy-start", "slice-start", "slice-done", "ConcatBitcast", "AllocateBuffer")
SORTS = ("sort", "TopK")
COLLECTIVES = ("all-reduce", "all-reduce-start", "reduce-scatter", "all-gather", "all-gather-start")
SLICES = ("gather", "dynamic-slice", "slice")

# Of the peak of products and of the bandwidth, what kernels are assumed to reach. Nothing was measured here.
PRODUCT_SHARE, BANDWIDTH_SHARE = 0.5, 0.8
FASTER = 20.0  # bandwidth of the memory in a TPU's core over that of HBM, by jax-ml.github.io/scaling-book
LAUNCH = 3e-6  # seconds from the start of one small kernel to the start of the next
READ_BACK = 15e-6  # seconds in which the host reads a loop's condition from the device and launches again


class Cost(NamedTuple):
    """The time of an operation; None if nothing is known of it."""

    seconds: float | None
    kernels: int = 1
    by_bytes: bool = False  # on a TPU: the compiler says nothing, so it is what moving the bytes takes


class Costs:
    """Times of the operations of a program on a target."""

    def __init__(self, program: Program, target: Target, devices: int) -> None:
        self.program, self.target, self.devices = program, target, devices
        self._results = {
            name: {operation.name: operation for operation in operations}
            for name, operations in program.computations.items()
        }

    def of(self, operation: Operation, computation: str) -> Cost:
        """The cost of one run of an operation, without the computations of loops and branches."""
        if operation.opcode in COLLECTIVES:
            return Cost(self.reduction(operation))
        if operation.opcode in FREE:
            return Cost(0.0, 0)
        if self.target.clock:
            return self._on_tpu(operation, computation)
        return Cost(self.kernel(operation, computation))

    def _on_tpu(self, operation: Operation, computation: str) -> Cost:
        """The compiler's estimate; else the author's of a kernel, or the bytes that are moved."""
        kind = operation.target or operation.opcode
        if operation.cycles is not None:
            return Cost(operation.cycles / self.target.clock)
        if kind in BESIDE or all(shape.elements <= 1 for shape in operation.shapes):
            return Cost(0.0, 0)
        if operation.opcode == "custom-call" or kind in SORTS:
            return Cost(self._stated(operation))
        return Cost(self.traffic(operation, computation) / self.target.bandwidth, by_bytes=True)

    def reduction(self, operation: Operation) -> float:
        """A ring over all devices: each sends its arrays twice, but for its own share."""
        data = sum(shape.bytes for shape in operation.shapes)
        n = self.devices
        return 2 * (n - 1) / n * data / self.target.link

    def _stated(self, operation: Operation) -> float | None:
        """The time of a hand-written kernel by the products and bytes that its author states."""
        found = dict(re.findall(r'"(flops|bytes_accessed)":\s*"?(\d+)', operation.attributes))
        if not found:
            return None
        work, data = (float(found.get(key, 0)) for key in ("flops", "bytes_accessed"))
        return max(work / self.target.bfloat16, data / self.target.bandwidth)

    def kernel(self, operation: Operation, computation: str) -> float:
        """The time of one kernel by the roofline."""
        work = self.work(operation, computation)
        rate = self.target.bfloat16 if self._narrow(operation, computation) else self.target.float32
        data = self.traffic(operation, computation)
        times = work / (rate * PRODUCT_SHARE), data / (self.target.bandwidth * BANDWIDTH_SHARE)
        return max(*times, LAUNCH if self.target.platform == "gpu" else 0.0)

    def _operands(self, operation: Operation, computation: str) -> list[Operation]:
        known = self._results[computation]
        return [known[name] for name in operation.operands if name in known]

    def _narrow(self, operation: Operation, computation: str) -> bool:
        """Whether the products of an operation are of 16-bit numbers."""
        shapes = [s for operand in self._operands(operation, computation) for s in operand.shapes]
        return any(shape.dtype in ("bf16", "f16") for shape in shapes)

    def work(self, operation: Operation, computation: str) -> float:
        """The floating-point operations of the products of an operation."""
        inside = [
            self.work(inner, name)
            for name in operation.called.get("calls", [])
            for inner in self.program.computations.get(name, [])
        ]
        operands = [s for operand in self._operands(operation, computation) for s in operand.shapes[:1]]
        return sum(inside) + products(operation, operands)

    def traffic(self, operation: Operation, computation: str) -> float:
        """The bytes that an operation reads and writes; of an array that is only sliced, the slices."""
        fused = [name for name in operation.called.get("calls", []) if name in self.program.computations]
        operands = self._operands(operation, computation)
        if operation.opcode != "fusion" or not fused:
            return _plain_traffic(operation, operands)
        inner = self.program.computations[fused[0]]
        parameters = {int(op.literal): op for op in inner if op.opcode == "parameter"}
        read = sum(_read(parameters[i], inner) for i in sorted(parameters))
        return read + _written(inner, operation)


def moved(shape: Shape) -> float:
    """The bytes of an array, as far as HBM's bandwidth limits them: the memory of a core is far faster."""
    return shape.bytes / FASTER if shape.inside else shape.bytes


def _plain_traffic(operation: Operation, operands: list[Operation]) -> float:
    results = (
        operation.shapes[:1] if operation.opcode == "custom-call" else operation.shapes
    )  # then workspace
    written = sum(moved(shape) for shape in results)
    if operation.opcode in SLICES:
        return 2 * written
    if changed := _changed(operation):
        return 2 * sum(
            moved(shape) for operand in operands if operand.name == changed for shape in operand.shapes
        )
    return written + sum(moved(shape) for operand in operands for shape in operand.shapes)


def _read(parameter: Operation, inner: list[Operation]) -> float:
    """The bytes that a fusion reads of one of its parameters."""
    whole = sum(moved(shape) for shape in parameter.shapes)
    users = [op for op in inner if parameter.name in op.operands]
    if users and all(op.opcode in SLICES and op.operands[0] == parameter.name for op in users):
        return min(whole, sum(moved(shape) for op in users for shape in op.shapes))
    if users and all(
        op.opcode == "dynamic-update-slice" and op.operands[0] == parameter.name for op in users
    ):
        return 0.0  # changed in place
    return whole


def _written(inner: list[Operation], fusion: Operation) -> float:
    """The bytes that a fusion writes: of an array that is changed in place, the changed part."""
    if changed := _changed(inner[-1]):
        times = 2 if inner[-1].opcode == "scatter" else 1  # it adds to what it reads
        return times * sum(moved(shape) for op in inner if op.name == changed for shape in op.shapes)
    return sum(moved(shape) for shape in fusion.shapes)


def _changed(operation: Operation) -> str:
    """The operand that is written into the first one by an operation that changes this in place; or ""."""
    place = {"dynamic-update-slice": 1, "scatter": 2}.get(operation.opcode)
    return operation.operands[place] if place and len(operation.operands) > place else ""


def products(operation: Operation, operands: list[Shape]) -> float:
    """The floating-point operations of one product or convolution, from its shapes; 0 for others."""
    kind = operation.opcode if operation.opcode != "custom-call" else operation.target
    if len(operands) < 2 or not operation.shapes:
        return 0.0
    result = operation.shapes[0]
    if kind == "dot" or "gemm" in kind or "matmul" in kind:
        found = re.search(
            r'lhs_contracting_dim(?:ension)?s"?[=:]\s*[\[{]([^\]}]*)[\]}]', operation.attributes
        )
        contracted = [int(n) for n in re.findall(r"\d+", found[1])] if found else []
        return 2.0 * result.elements * math.prod(operands[0].dims[i] for i in contracted)
    labels = re.search(r"dim_labels=\w+_(\w+)->\w+", operation.attributes)
    if labels and ("conv" in kind):
        # Each product belongs to one place of the forward convolution's output and one weight of a feature.
        output, kernel = _roles(kind, operands, result)
        features = kernel.dims[labels[1].index("o")]
        zeros = math.prod(_dilation(operation.attributes))
        return 2.0 * output.elements * kernel.elements / max(features, 1) / zeros
    return 0.0


def _roles(kind: str, operands: list[Shape], result: Shape) -> tuple[Shape, Shape]:
    """The output and the kernel of the forward convolution that an operation belongs to."""
    if "BackwardFilter" in kind:
        return operands[1], result
    if "BackwardInput" in kind:
        return operands[0], operands[1]
    return result, operands[1]


def _dilation(attributes: str) -> list[int]:
    found = re.search(r"lhs_dilate=([\dx]+)", attributes)
    return [int(n) for n in found[1].split("x")] if found else []


def peak_share(flops: float, seconds: float, target: Target, dtype: str) -> float:
    """The share of the target's peak that `flops` in `seconds` are."""
    rate: Mapping[str, float] = {"bfloat16": target.bfloat16}
    return flops / seconds / rate.get(dtype, target.float32) if seconds else 0.0
