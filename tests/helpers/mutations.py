"""Random changes of valid files, for tests that each is read, or rejected with one line that names it.

The suite tries a few of each kind; `pytest -k test_fuzz --hypothesis-profile=long` tries thousands.
"""

import copy

from hypothesis import strategies as st

from masktrack_jax.runtime.errors import UserError

# Values to put into a JSON file; the numbers and texts are known to do harm.
NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, 2**63, 10**6, 10**12, 1e300, 10**400, 0.5, float("nan"), float("inf")]
)
TEXTS = st.sampled_from(["", "/etc/hosts", "../x", "a/../../x", "\0", "\ud800", "é", "PPPPPPPP0", "1" * 40])
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS | st.integers(-3, 40) | st.text(max_size=6)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """The path of every entry of a JSON value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def changed(draw, content):
    """`content` with up to three of its entries removed, doubled, or replaced."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        known = list(places(content))
        if not known:
            break
        *path, key = draw(st.sampled_from(known))
        parent = content
        for step in path:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "double", "swap"]))
        if kind == "replace":
            parent[key] = draw(VALUES)
        elif kind == "remove":
            del parent[key]
        elif kind == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            *path, other = draw(st.sampled_from(known))
            value = content
            for step in (*path, other):
                value = value[step]
            parent[key] = copy.deepcopy(value)
    return content


def cut_or_flipped(whole):
    """The bytes `whole` with a few of them changed, or cut off."""
    flips = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)

    def change(arguments):
        places, end = arguments
        data = bytearray(whole)
        for place, value in places:
            data[place] = value
        return bytes(data[:end])

    return st.tuples(flips, st.integers(0, len(whole)) | st.just(len(whole))).map(change)


def refused_or(read, path):
    """The result of `read(path)`, or None if it refuses the file in one line that names it."""
    try:
        return read(path)
    except UserError as error:
        text = str(error)
        assert "\n" not in text and str(path) in text, text
        assert len(text) < 600 + len(str(path)), text
        return None
