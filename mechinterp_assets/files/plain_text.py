"""Texts from files and file names, fit for one line of a terminal, a log or a page.

Belongs here: what cannot be printed, written as an escape. Does not belong here: HTML (the template
engine escapes it).
"""

from collections.abc import Sequence


def printable(text: str) -> str:
    """The text with line ends, control characters and broken bytes as escapes: `\\n`, `\\x1b`."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def listed(names: Sequence[str], most: int) -> str:
    """The names, or the first `most` of them and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and three dots, in at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
