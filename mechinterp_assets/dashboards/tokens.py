"""Token text made visible and harmless in HTML.

Belongs here: what a token looks like on a page. Token text is arbitrary bytes that someone put into
a vocabulary: markup, quotes, line breaks, control characters, right-to-left overrides.
"""

import html
import unicodedata
from functools import lru_cache

MAX_CHARACTERS = 48  # longer tokens are cut, with an ellipsis
_SPACE = "␣"
_VISIBLE = {"\n": "⏎", "\r": "␍", "\t": "⇥", " ": _SPACE}
# Anything that is not drawn, reorders its surroundings or breaks lines.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_DOTTED_CIRCLE = "◌"


def token_label(token: str) -> str:
    """A token as it is named in a list, plain text: every space and control character is drawn.

    Invisible characters appear as their code point, U+202E; an empty token as an empty-set sign.
    """
    shown = "".join(_visible(character) for character in token[:MAX_CHARACTERS])
    if len(token) > MAX_CHARACTERS:
        shown += "…"
    if not shown:
        return "∅"
    # A combining mark would attach itself to what stands before it.
    return _DOTTED_CIRCLE + shown if unicodedata.combining(shown[0]) else shown


def running_label(token: str) -> tuple[str, str]:
    """A token as it stands in running plain text: a single leading space, then its label.

    The space is apart, so that a mark on the token does not break in two at the end of a line.
    """
    spaced = len(token) > 1 and token[0] == " " and token[1] != " "
    return (" " if spaced else ""), token_label(token[1:] if spaced else token)


def running_text(token: str) -> tuple[str, str]:
    """The same with the label as escaped HTML.

    Right-to-left text is isolated in <bdi>, so that it does not reorder its neighbours.
    """
    space, text = running_label(token)
    escaped = html.escape(text)
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text):
        escaped = f"<bdi>{escaped}</bdi>"
    return space, escaped


class TokenTexts:
    """Labels and running text of a vocabulary, made once per token.

    Attributes:
        labels: plain text by token id; escape before use in HTML.
        running: (space in front or nothing, escaped HTML) by token id.
    """

    def __init__(self, token_strings: list[str]) -> None:
        self.labels = [token_label(token) for token in token_strings]
        self.running = [running_text(token) for token in token_strings]

    def __len__(self) -> int:
        return len(self.labels)


# ---- private -------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _visible(character: str) -> str:
    if character in _VISIBLE:
        return _VISIBLE[character]
    if unicodedata.category(character) in _INVISIBLE:
        return f"⟨U+{ord(character):04X}⟩"
    return character
