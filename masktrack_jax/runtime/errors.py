"""The exception for problems that the user can fix."""

import unicodedata

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # controls, lone surrogates, separators of lines and paragraphs
_REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # show text in another order

# The start of a local path: what is shown instead, for copies of what is at a URL; see runtime/remote.py.
shown_as: dict[str, str] = {}


class UserError(Exception):
    """Invalid input. The one-line message names the file, record or config key, and says how to fix it.

    A name in the message may be any text of a file, so unprintable characters are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def one_line(error: object, most: int = 200) -> str:
    """The text of an error without line breaks, cut to `most` characters; its type if it has no text."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def printable(text: str) -> str:
    """The text with unprintable characters escaped: one line that every terminal shows as it is.

    A local path that stands for a URL is shown as the URL.
    """
    for start, url in shown_as.items():
        text = text.replace(start, url)
    return "".join(c.encode("unicode_escape").decode() if _changes_terminal(c) else c for c in text)


def _changes_terminal(character: str) -> bool:
    kinds = unicodedata.category(character), unicodedata.bidirectional(character)
    return kinds[0] in _UNPRINTABLE or kinds[1] in _REORDERING
