"""Numbers that were read from a file."""

from numbers import Integral


def as_integer(value: object) -> int | None:
    """The integer that is equal to a number such as 48 or 48.0; None for any other value and for booleans."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None
