"""What was asked for and is not there.

Belongs here: the error, and names that may have been meant.
"""

import difflib
from collections.abc import Iterable

from mechinterp_assets.files.plain_text import listed


class NotThereError(LookupError):
    """A study, table, layer, feature, head or file that is not there; the message says what is."""

    def __str__(self) -> str:  # KeyError's and LookupError's repr would hide line ends and quotes
        return str(self.args[0]) if self.args else ""


def perhaps(name: str, known: Iterable[str], most: int = 12) -> str:
    """The names closest to one that does not exist, or what there is where none is close."""
    names = list(known)
    if close := difflib.get_close_matches(name, names, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(repr(one) for one in close)}?"
    if not names:
        return "there is none"
    return f"there is: {listed(names, most)}"
