"""Typed values of JSON records: whole numbers and ids, and the words for values of another type."""

from collections.abc import Callable, Collection, Mapping
from numbers import Real
from typing import Any

from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.numbers import as_integer

Id = int | str  # of a video; the ids of categories are integers
# Called with the kind of a fault, the record and its problem: raises an exception, or collects the fault.
Report = Callable[[str, str, str], None]

LARGEST_ID = 2**63 - 1  # ids are stored in 64 bits
_OTHER_NAMES = {"frame_id": "frame_index", "instance_id": "track_id"}  # in TAO and exports of single images
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}


def record_error(path: object, record: str, problem: str) -> UserError:
    """The one-line error of a record of an annotations file."""
    return UserError(f"{path}: {record} {problem}; correct the annotations file")


def kind_of(value: object) -> str:
    """The kind of a JSON value, in words."""
    return _KINDS.get(type(value), "a number")


def shown(value: object) -> str:
    """A JSON value for messages, cut to a few words: 7, 'seven', [1, 2]."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"
    if isinstance(value, list | tuple) and len(value) <= 4 and not any(map(_is_container, value)):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, dict):
        return kind_of(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(f"{value!r:.60}")


def _is_container(value: object) -> bool:
    return isinstance(value, list | tuple | dict)


def record_name(record: object, noun: str, place: int) -> str:
    """The name of a record for messages: its id, or else its place in its list, from 1."""
    if isinstance(record, dict) and isinstance(record.get("id"), int | float | str):
        return f"{noun} {shown(record['id'])}"
    return f"{noun} number {place}"


def is_number(value: Any, limit: float) -> bool:
    """Whether a value is a finite number between -limit and limit."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return bool(-limit <= value <= limit)  # type: ignore[operator]  # any two real numbers compare


def whole_number(
    record: Mapping[str, Any], key: str, where: str, report: Report, kind: str, low: int = -LARGEST_ID
) -> int | None:
    """The integer `record[key]`, at least `low`. Any other value is reported as `kind` and gives None."""
    if key not in record:
        other = _OTHER_NAMES.get(key)
        hint = f" but `{other}`, which data.convert --from coco reads" if other in record else ""
        report(kind, where, f"has no `{key}`{hint}")
        return None
    value = as_integer(record[key])
    if value is None or not low <= value <= LARGEST_ID:
        expected = "a whole number" if low < 0 else f"a whole number from {low} on"
        expected += ", below 2^63" if value is not None and value > LARGEST_ID else ""
        report(kind, where, f"has `{key}` {typed(record[key])}, expected {expected}")
        return None
    return value


def typed(value: object) -> str:
    """`shown`, which also says that text is text: '4' (text)."""
    return f"{shown(value)} (text)" if isinstance(value, str) else shown(value)


def unique_ids(records: list, noun: str, report: Report, *, text: bool = False) -> list[Id | None]:
    """The ids of records: unique integers or, with `text`, unique texts; None where one is faulty."""
    ids: list[Id | None] = []
    seen: dict[Id, None] = {}
    for place, record in enumerate(records, start=1):
        where, found = f"{noun} number {place}", None
        if not isinstance(record, dict):
            report("records that are not objects", where, f"is {shown(record)}, expected an object")
        elif text and isinstance(record.get("id"), str):
            found = record["id"]
        else:
            found = whole_number(record, "id", where, report, "missing ids")
        if found is not None and seen and type(found) is not type(next(iter(seen))):
            report("missing ids", where, f"has `id` {typed(found)}, but those before it are of another type")
            found = None
        elif found is not None and found in seen:
            report("duplicate ids", f"{noun} {shown(found)}", f"appears twice, again as number {place}")
            found = None
        if found is not None:
            seen[found] = None
        ids.append(found)
    return ids


def as_id(value: object) -> Id | None:
    """The id as an integer or text; None for any other value."""
    return value if isinstance(value, str) else as_integer(value)


def numbered_id(value: object) -> Id | None:
    """Like `as_id`, but text of digits is its number: "7" is 7."""
    found = as_id(value)
    return int(found) if isinstance(found, str) and found.isdecimal() and len(found) < 19 else found


def crowd_flag(record: Mapping[str, Any], where: str, report: Report) -> int | None:
    """`iscrowd` of a record: 0, also if it is absent or null, or 1. Any other value is reported."""
    flag = record.get("iscrowd")
    number = int(flag or 0) if isinstance(flag, bool | None) else as_integer(flag)
    if number in (0, 1):
        return number
    report("crowd flags other than 0 and 1", where, f"has `iscrowd` {typed(flag)}, expected 0 or 1")
    return None


def known_id(
    record: Mapping[str, Any], key: str, known: Collection[Id], table: str, where: str, report: Report
) -> Id | None:
    """The id `record[key]` if it is one of `known`, the ids of `table`; another one is reported."""
    if key not in record:
        report("missing keys", where, f"has no `{key}`")
        return None
    value = record[key]
    found = as_id(value)
    if found is not None and found in known:
        return found
    report("unknown ids", where, f"has `{key}` {typed(value)}, which is not among the {table}")
    return None
