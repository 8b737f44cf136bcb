"""Rows of a corpus that hold no usable text: passed over, counted, and limited.

Belongs here: the count, and when there are too many. Does not belong here: which rows these are
(readers.py).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from mechinterp_assets.files.plain_text import printable

Reason = Literal["null", "empty", "not_unicode", "not_text", "no_column"]
REASONS: tuple[Reason, ...] = get_args(Reason)
ALWAYS_ALLOWED = 10
_NAMED = 5


class CorpusError(ValueError):
    """A corpus that cannot be read; the message names the place and the remedy, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True, slots=True)
class UnusableRow:
    """A row without usable text: its file and row, and what is wrong with its text.

    remedy: the whole message, where a corpus of such rows alone has a wrong setting.
    """

    place: str
    reason: Reason
    remedy: str | None = None


class SkippedRows:
    """Count of the rows that were passed over, beside those that were read.

    Args:
        max_share: of all rows, that may hold no text, blank ones aside, beyond `ALWAYS_ALLOWED` of
            them.
    """

    def __init__(self, max_share: float) -> None:
        self.counts: Counter[Reason] = Counter()
        self.n_usable = 0
        self._max_share = max_share
        self._first: list[UnusableRow] = []
        self._remedy: str | None = None

    def skip(self, row: UnusableRow) -> None:
        """Count a row that is passed over.

        Raises CorpusError where the setting must be wrong: the first rows are all of this kind.
        """
        self.counts[row.reason] += 1
        self._remedy = self._remedy or row.remedy
        if self.counts.total() > ALWAYS_ALLOWED:
            self._require_usable()
        if len(self._first) < _NAMED:
            self._first.append(row)

    @property
    def described(self) -> str:
        """How many rows were passed over, and the first of them with what is wrong."""
        counts = ", ".join(
            f"{n} {reason.replace('_', ' ')}" for reason, n in sorted(self.counts.items())
        )
        first = "; ".join(f"{row.place} ({row.reason.replace('_', ' ')})" for row in self._first)
        return f"{self.counts.total()} without usable text ({counts}): first {first}"

    def check(self) -> None:
        """Raise CorpusError when too many rows were passed over; blank ones are no fault, as data
        sets of lines have many."""
        self._require_usable()
        skipped = self.counts.total() - self.counts["empty"]
        total = self.counts.total() + self.n_usable
        if skipped > max(ALWAYS_ALLOWED, self._max_share * total):
            raise CorpusError(
                f"of {total} rows {self.described}; more than {self._max_share:.2%} "
                f"(corpus.max_skipped_share) and more than {ALWAYS_ALLOWED}: correct the source or "
                "corpus.text_column, or allow more"
            )

    def _require_usable(self) -> None:
        if self.n_usable == 0 and self._remedy is not None:
            raise CorpusError(self._remedy)
