"""Proxies: rules over tokens that stand for what a feature is believed to mean.

Belongs here: what kinds of proxy there are, at which tokens each holds. Does not belong here:
comparing them with features (specificity.py), and how a study names them (settings.py).

A proxy holds at a token or not, whatever any feature does there, with one exception:
`PromotedByInduction` asks about each feature's own token.
"""

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import Cells, CorpusTokens
from mechinterp_assets.model.token_labels import label_bytes

WINDOW = 16
_ROWS_AT_ONCE = 1024


class ProxyError(ValueError):
    """A proxy that cannot be computed; the message names it, the value and the remedy."""


class Proxy(ABC):
    """A rule with a name; `definition` says in words when it holds."""

    name: str

    @property
    @abstractmethod
    def definition(self) -> str:
        """When the proxy holds at a token."""

    @abstractmethod
    def check(self, token_strings: list[str]) -> None:
        """Refuse what this tokenizer cannot express. Raises ProxyError."""


class TokenProxy(Proxy):
    """A proxy whose truth at a token does not depend on the feature."""

    @abstractmethod
    def holds(self, tokens: CorpusTokens, token_strings: list[str]) -> NDArray[np.bool_]:
        """[cell] whether it holds; False at tokens that were not read."""


@dataclass(frozen=True)
class InTokens(TokenProxy):
    """The current token is one of a set."""

    name: str
    texts: tuple[str, ...]

    @property
    def definition(self) -> str:
        """When the proxy holds at a token."""
        return "the token is one of " + ", ".join(map(repr, self.texts))

    def check(self, token_strings: list[str]) -> None:
        """Refuse a text that is not one token."""
        for text in self.texts:
            token_ids_of(text, token_strings, self.name)

    def holds(self, tokens: CorpusTokens, token_strings: list[str]) -> NDArray[np.bool_]:
        """[cell] whether it holds; False at tokens that were not read."""
        wanted = [i for text in self.texts for i in token_ids_of(text, token_strings, self.name)]
        return tokens.read & np.isin(tokens.token_ids, wanted)


@dataclass(frozen=True)
class MatchesContext(TokenProxy):
    """A regular expression is found in the text that ends with the current token.

    The text: the last `window` tokens up to and including the current one, their bytes joined, cut
    at the last BOS and at position 0; parts of characters at its ends are U+FFFD. The expression
    may match anywhere in it: end it with `$` for the current token. Its syntax is that of Rust's
    regex crate, which searches in time linear in the text whatever the expression (hence no
    look-around and no back-references), so that the whole costs n_tokens * window.
    """

    name: str
    regex: str
    window: int = WINDOW

    @property
    def definition(self) -> str:
        """When the proxy holds at a token."""
        return f"/{self.regex}/ is found in the text of the last {self.window} tokens"

    def check(self, token_strings: list[str]) -> None:
        """Refuse an expression that does not compile."""
        check_regex(self.regex)

    def holds(self, tokens: CorpusTokens, token_strings: list[str]) -> NDArray[np.bool_]:
        """[cell] whether it holds; False at tokens that were not read."""
        result = np.zeros(len(tokens.token_ids), dtype=bool)
        texts = np.empty(len(token_strings), dtype=object)
        texts[:] = [label_bytes(label) for label in token_strings]
        per_block = _ROWS_AT_ONCE * tokens.context
        for start in range(0, len(result), per_block):
            block = slice(start, start + per_block)
            read = tokens.read[block].reshape(-1, tokens.context)
            strings = texts[tokens.token_ids[block]].reshape(-1, tokens.context)
            windows: list[str] = []
            for row, row_read in zip(strings, read, strict=True):
                windows += self._windows(row, row_read)
            found = pl.Series(windows, dtype=pl.String).str.contains(self.regex).to_numpy()
            result[start + np.flatnonzero(read.reshape(-1))] = found
        return result

    def _windows(self, row: NDArray[np.object_], read: NDArray[np.bool_]) -> list[str]:
        """Text of the window of each read token of one sequence."""
        ends = np.cumsum([0, *map(len, row)])
        text = b"".join(row)
        windows, begin = [], 0
        for position in range(len(row)):
            if not read[position]:
                begin = position + 1
                continue
            first = max(begin, position - self.window + 1)
            windows.append(text[ends[first] : ends[position + 1]].decode(errors="replace"))
        return windows


@dataclass(frozen=True)
class NextByInduction(TokenProxy):
    """A token X is next by induction: an earlier occurrence of the current token was followed by X.

    Earlier in the same sequence; the earlier occurrence's X comes no later than the current token.
    """

    name: str
    text: str

    @property
    def definition(self) -> str:
        """When the proxy holds at a token."""
        return f"an earlier occurrence of the token was followed by {self.text!r}"

    def check(self, token_strings: list[str]) -> None:
        """Refuse a text that is not one token."""
        token_ids_of(self.text, token_strings, self.name)

    def holds(self, tokens: CorpusTokens, token_strings: list[str]) -> NDArray[np.bool_]:
        """[cell] whether it holds; False at tokens that were not read."""
        result = np.zeros(len(tokens.token_ids), dtype=bool)
        for token in token_ids_of(self.text, token_strings, self.name):
            result[cells_by_induction(tokens, token)] = True
        return result


@dataclass(frozen=True)
class AnyByInduction(TokenProxy):
    """Some token is next by induction: the current token has occurred before in its sequence.

    An earlier occurrence right before BOS or before a token that was not read does not count.
    """

    name: str
    definition: str = "an earlier occurrence of the token was followed by some token"

    def check(self, token_strings: list[str]) -> None:
        """Nothing to refuse."""

    def holds(self, tokens: CorpusTokens, token_strings: list[str]) -> NDArray[np.bool_]:
        """[cell] whether it holds; False at tokens that were not read."""
        result = np.zeros(len(tokens.token_ids), dtype=bool)
        earlier = np.flatnonzero(tokens.read[:-1] & tokens.read[1:])
        later = tokens.next_same[earlier]
        while len(later := later[later >= 0]):
            # What recurs once more was reached before by another way, or is new.
            later = later[~result[later]]
            result[later] = True
            later = tokens.next_same[later]
        return result


@dataclass(frozen=True)
class PromotedByInduction(Proxy):
    """Each feature's own token is next by induction: the token with its largest logit effect."""

    name: str
    definition: str = (
        "an earlier occurrence of the token was followed by the feature's most promoted token"
    )

    def check(self, token_strings: list[str]) -> None:
        """Nothing to refuse."""


def cells_by_induction(tokens: CorpusTokens, token_id: int) -> Cells:
    """Cells at which a token is next by induction, ascending (see NextByInduction)."""
    occurrences = tokens.occurrences(token_id)
    before = occurrences[occurrences % tokens.context > 0] - 1
    later = tokens.next_same[before[tokens.read[before]]]
    found: list[Cells] = []
    while len(later := later[later >= 0]):
        found.append(later)
        later = tokens.next_same[later]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


def check_regex(regex: str) -> None:
    """Refuse a regular expression that does not compile. Raises ProxyError."""
    try:
        pl.Series([""]).str.contains(regex)
    except pl.exceptions.ComputeError as error:
        reason = " ".join(str(error).partition("This error occurred")[0].split())
        raise ProxyError(
            f"the regular expression {regex!r} does not compile ({reason}); correct it "
            "(look-around and back-references are not offered: the search must take linear time)"
        ) from None


def token_ids_of(text: str, token_strings: list[str], proxy: str) -> list[int]:
    """Ids of the tokens whose text is exactly `text`.

    Raises:
        ProxyError: no single token has that text.
    """
    found = [i for i, string in enumerate(token_strings) if string == text]
    if not found:
        near = [string for string in (f" {text}", text.strip()) if string in token_strings]
        near += difflib.get_close_matches(text, token_strings, n=2)
        hint = ", ".join(dict.fromkeys(map(repr, near)))
        raise ProxyError(
            f"proxy {proxy!r}: {text!r} is not one token of this tokenizer; "
            + (f"perhaps {hint}" if hint else "name a token as it stands in the table vocabulary")
            + " (a leading space belongs to the token), or use a regex"
        )
    return found
