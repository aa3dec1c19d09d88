"""Helpers for tests of checkpoints."""

CATEGORIES = [(7, "circle"), (9, "square"), (12, "star")]


def one_line(error):
    """The message of a caught error, which must be one line."""
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text
