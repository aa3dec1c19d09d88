"""Options: defaults, checks and keys of nested dataclasses, against cases worked out by hand."""

from dataclasses import asdict, dataclass

import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.options import (
    Entry,
    at_least,
    between,
    check_options,
    entries,
    one_of,
    one_of_table,
    option,
    positive,
    value_at,
)

within = between(0, 1)


@dataclass(frozen=True)
class Inner:
    rate: float = option(0.5, "a part", within)
    free: str = option("", "anything")


@dataclass(frozen=True)
class Outer:
    count: int = option(3, "a number", positive)
    inner: Inner = option(Inner(rate=0.25))  # noqa: RUF009


@dataclass(frozen=True)
class Required:
    more: int = option(comment="required")
    rate: float = option(0.5, "a part", within)


def test_entries_are_in_the_order_of_the_fields():
    assert list(entries(Outer())) == [
        Entry("count", 3, "a number", positive),
        Entry("inner.rate", 0.25, "a part", within),
        Entry("inner.free", "", "anything", None),
    ]


def test_an_option_without_a_default_is_required():
    with pytest.raises(TypeError, match="more"):
        Required()
    assert asdict(Required(more=1)) == {"more": 1, "rate": 0.5}
    assert asdict(Outer()) == {"count": 3, "inner": {"rate": 0.25, "free": ""}}


@pytest.mark.parametrize("kind", [dict, ConfigDict, FrozenConfigDict, lambda values: Outer(3, Inner(0.5))])
def test_values_may_be_mappings_or_dataclasses(kind):
    values = kind({"count": 3, "inner": {"rate": 0.5, "free": ""}})
    assert value_at(values, "inner.rate") == 0.5
    check_options(Outer(), values, "config.")


@pytest.mark.parametrize(
    "check, good, bad, allowed",
    [
        (positive, 1, 0, "must be positive"),
        (at_least(2), 2, 1, "must be 2 or more"),
        (between(0, 1), 1, 1.5, "must be between 0 and 1"),
        (one_of("a", "b"), "b", "c", "use one of 'a', 'b'"),
        (one_of_table(lambda: {"a": 1, "b": 2}), "a", "c", "use one of 'a', 'b'"),
        (positive, 1, "1", "must be positive"),
        (between(0, 1), 0, None, "must be between 0 and 1"),
    ],
)
def test_an_error_names_key_value_and_what_is_allowed(check, good, bad, allowed):
    @dataclass(frozen=True)
    class Section:
        key: int = option(0, "", check)

    check_options(Section(), {"key": good}, "config.section.")
    with pytest.raises(UserError) as error:
        check_options(Section(), {"key": bad}, "config.section.")
    assert str(error.value) == f"config.section.key: is {bad!r}; {allowed}"
