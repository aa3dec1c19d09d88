"""Options as frozen dataclasses: each field states its default, a comment and a check in one place.

    @dataclass(frozen=True)
    class Options:
        batch_size: int = option(8, "pairs of a training step", positive)

Values may come as a dataclass of options, or from a config section with the same keys. Sections nest.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, field, fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple

from masktrack_jax.runtime.errors import UserError

Value = Any  # the value of an option


class Check(NamedTuple):
    """A condition on a value, a description of the allowed values, and a list of them if they are few."""

    passes: Callable[[Value], bool]
    allowed: str | Callable[[], str]
    choices: tuple[Value, ...] = ()


positive = Check(lambda value: value > 0, "must be positive")
positive_numbers = Check(lambda values: all(0 < x < math.inf for x in values), "give positive numbers")


def at_least(low: float) -> Check:
    """The value is `low` or more."""
    return Check(lambda value: value >= low, f"must be {low} or more")


def between(low: float, high: float) -> Check:
    """The value is in [`low`, `high`]."""
    return Check(lambda value: low <= value <= high, f"must be between {low} and {high}")


def one_of(*choices: Value) -> Check:
    """The value is one of `choices`."""
    return Check(lambda value: value in choices, f"use one of {', '.join(map(repr, choices))}", choices)


def one_of_table(table: Callable[[], Collection[Value]]) -> Check:
    """The value is in `table()`. `table` is called only when a value is checked, so it may import modules."""
    return Check(
        lambda value: value in tuple(table()),
        lambda: f"use one of {', '.join(map(repr, table()))}",
    )


def option(default: Value = MISSING, comment: str = "", check: Check | None = None) -> Value:
    """A field of an options dataclass; without `default` a value is required."""
    return field(default=default, metadata={"comment": comment, "check": check})


class Entry(NamedTuple):
    """One option: its dotted key, default, comment and check."""

    key: str
    default: Value
    comment: str
    check: Check | None


def entries(options: Value, prefix: str = "") -> Iterator[Entry]:
    """The options of a dataclass in the order of its fields; a nested section yields its own options."""
    for item in fields(options):
        key, default = f"{prefix}{item.name}", getattr(options, item.name)
        if is_dataclass(default):
            yield from entries(default, f"{key}.")
        else:
            yield Entry(key, default, item.metadata.get("comment", ""), item.metadata.get("check"))


def value_at(values: Value, key: str) -> Value:
    """The value at a dotted key of nested mappings or dataclasses."""
    for part in key.split("."):
        values = values[part] if hasattr(values, "items") else getattr(values, part)
    return values


def check_options(options: Value, values: Value, prefix: str) -> None:
    """Apply the checks of the dataclass `options` to `values`.

    Raises a UserError with the key (after `prefix`), its value and the allowed values.
    """
    for entry in entries(options):
        if entry.check:
            require(value_at(values, entry.key), entry.check, f"{prefix}{entry.key}")


def check_types(options: Value, values: Value, prefix: str) -> None:
    """Raise a UserError for a value that has not the type of its default in the dataclass `options`."""
    for entry in entries(options):
        kind = Check(partial(_alike, entry.default), partial(_type_of, entry.default))
        require(value_at(values, entry.key), kind, f"{prefix}{entry.key}")


def _alike(default: Value, value: Value) -> bool:
    """Whether a value has the type of a default. A pair in a tuple must be a pair; other lengths vary."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(
            _alike(default[0], item) and (not isinstance(item, tuple | list) or len(item) == len(default[0]))
            for item in value
        )
    kinds = (int, float) if isinstance(default, float) else type(default)
    return (
        isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool) and value == value
    )


def _type_of(default: Value) -> str:
    """The type of a default, in words."""
    if isinstance(default, tuple):
        return f"give values such as {default}"
    words = {bool: "must be True or False", int: "must be an integer", float: "must be a number"}
    return words.get(type(default), "must be text")


def require(value: Value, check: Check, key: str) -> None:
    """Raise a UserError that names `key` unless its value passes the check."""
    try:
        good = check.passes(value)
    except (TypeError, ValueError):  # a value of another type
        good = False
    if not good:
        allowed = check.allowed if isinstance(check.allowed, str) else check.allowed()
        raise UserError(f"{key}: is {value!r}; {allowed}")
