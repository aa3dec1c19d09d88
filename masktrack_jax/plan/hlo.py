"""Read the text of an optimised XLA program: its computations, their operations, shapes and attributes."""

import json
import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "token": 0, "opaque": 0}  # others: bits in their names
SHAPE = re.compile(r"\b(pred|token|opaque|bf16|[suf]\d+(?:e\d+m\d+\w*)?|c\d+)\[([\d,]*)\](\{[^}]*\})?")
CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation|branch_computations"
    r"|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)


class Shape(NamedTuple):
    """The element type and the dimensions of an array."""

    dtype: str
    dims: tuple[int, ...]
    inside: bool = False  # in the memory of a TPU's core, not in HBM

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        size = BYTES.get(self.dtype)
        if size is None:
            bits = re.search(r"\d+", self.dtype)
            size = int(bits[0]) / 8 if bits else 4
        return self.elements * size


class Operation:
    """One line of a computation: `name = type opcode(operands), attributes`."""

    def __init__(self, name: str, kind: str, opcode: str, operands: str, attributes: str) -> None:
        self.name, self.opcode, self.attributes = name, opcode, attributes
        self._type, self._operands = kind, operands

    @cached_property
    def shapes(self) -> list[Shape]:
        """The arrays of the result; several for a tuple."""
        return shapes(self._type)

    @cached_property
    def operands(self) -> list[str]:
        """The names of the operands."""
        return re.findall(r"%([\w.\-]+)", self._operands)

    @property
    def literal(self) -> str:
        """The text between the brackets: the value of a constant, the number of a parameter."""
        return self._operands

    @cached_property
    def scope(self) -> str:
        """The path of JAX's name scopes that the operation comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @cached_property
    def target(self) -> str:
        """The function that a custom call calls."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @cached_property
    def called(self) -> dict[str, list[str]]:
        """Names of computations by the attribute that names them: body, condition, calls, …"""
        return {key: re.findall(r"[\w.\-]+", names) for key, names in CALLED.findall(self.attributes)}

    @cached_property
    def backend(self) -> dict[str, Any]:
        """The compiler's own notes on the operation."""
        start = self.attributes.find("backend_config=")
        if start < 0:
            return {}
        text = self.attributes[start + len("backend_config=") :]
        try:
            found = json.JSONDecoder().raw_decode(text)[0]
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def cycles(self) -> int | None:
        """The TPU compiler's estimate of the operation's time, if it gives one."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else None


class Program(NamedTuple):
    """A module: its computations by name, each in the order of its schedule, and the name of the first."""

    computations: dict[str, list[Operation]]
    entry: str

    def all(self) -> Iterator[tuple[str, Operation]]:
        """Every operation with the name of its computation."""
        for name, operations in self.computations.items():
            for operation in operations:
                yield name, operation


def shapes(text: str) -> list[Shape]:
    """All arrays in the text of a type."""
    return [
        Shape(dtype, tuple(int(n) for n in dims.split(",") if n), "S(1)" in layout)
        for dtype, dims, layout in SHAPE.findall(text)
    ]


def parse(text: str) -> Program:
    """Read a module's text as `compiled.as_text()` prints it."""
    computations: dict[str, list[Operation]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            words = line.replace("ENTRY", "").split()
            name = words[0].lstrip("%").partition("(")[0]
            current = computations.setdefault(name, [])
            if line.startswith("ENTRY"):
                entry = name
        elif current is not None and " = " in line:
            if operation := _operation(line.strip()):
                current.append(operation)
        elif line.startswith("}"):
            current = None
    return Program(computations, entry)


def _operation(line: str) -> Operation | None:
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    end = _after_type(rest)
    found = re.match(r"\s*([\w\-]+)\(", rest[end:])
    if not found:
        return None
    start = end + found.end() - 1
    close = _closing(rest, start)
    return Operation(
        name.lstrip("%"), rest[:end], found[1], rest[start + 1 : close], rest[close + 1 :].lstrip(", ")
    )


def _after_type(text: str) -> int:
    """The place after a type: a tuple in brackets, or an array with its layout."""
    if text.startswith("("):
        return _closing(text, 0) + 1
    return text.index(" ") if " " in text else len(text)


def _closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)
