"""Ordinal sequences of tokens: numbers, days, months, letters.

Belongs here: which token text follows which. Used by the successor features' heuristic.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Sequences that begin again after their end, then those that stop.
CYCLES = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "January February March April May June July August September October November December",
)
CHAINS = (
    "one two three four five six seven eight nine ten eleven twelve",
    "first second third fourth fifth sixth seventh eighth ninth tenth",
    "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
)


@dataclass(frozen=True)
class SuccessorClasses:
    """For each token id: the class of its own text and that of its successor's text; -1: none."""

    own: NDArray[np.int64]
    following: NDArray[np.int64]


def successor(text: str) -> str | None:
    """Text that follows `text` in its sequence, in lower case; None outside the sequences.

    Spaces around the text do not matter. Whole numbers of up to four digits without leading zeros,
    number words and ordinals, days, months; single letters only as capitals, since "a" and "i" are
    words.
    """
    word = text.strip()
    if word.isascii() and word.isdigit():
        number = int(word)
        return str(number + 1) if len(word) <= 4 and str(number) == word else None
    if len(word) == 1 and not word.isupper():
        return None
    return _FOLLOWING.get(word.lower())


def successor_classes(token_strings: list[str]) -> SuccessorClasses:
    """Classes of equal texts (without spaces around them, without case) of a vocabulary."""
    numbers: dict[str, int] = {}
    own = np.full(len(token_strings), -1, dtype=np.int64)
    following = np.full(len(token_strings), -1, dtype=np.int64)
    for token, text in enumerate(token_strings):
        own[token] = numbers.setdefault(text.strip().lower(), len(numbers))
    for token, text in enumerate(token_strings):
        after = successor(text)
        if after is not None:
            following[token] = numbers.get(after, -1)
    return SuccessorClasses(own, following)


def _table() -> dict[str, str]:
    pairs: dict[str, str] = {}
    for sequence in (*CYCLES, *CHAINS):
        words = sequence.lower().split()
        pairs |= dict(pairwise(words))
        if sequence in CYCLES:
            pairs[words[-1]] = words[0]
    return pairs


_FOLLOWING = _table()
