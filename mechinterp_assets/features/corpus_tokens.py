"""The tokens that a feature pass read, addressed by cell.

Belongs here: which tokens count, where a token occurs, where it occurs next. Does not belong here:
what features do at them.

A cell is row * context + position, one integer per token of the corpus rows held here. Read tokens
are those of `feature_pass`: not position 0, not BOS, in corpus order up to its number of tokens.
"""

from collections.abc import Collection
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.corpora.token_documents import Separator, numbered_documents, token_documents
from mechinterp_assets.corpora.tokenize import token_matrix

Cells = NDArray[np.int64]


class CorpusTokens:
    """Token ids [row, position] of sequences in ascending order, and which of them were read.

    Attributes:
        sequences: [row] int64, number of each sequence in the corpus.
        token_ids: [cell] int64.
        read: [cell] bool.
        context: positions in a sequence.
        document: [cell] int64, number below n_documents of the document that each token is of;
            where none are given, every sequence is a document.
    """

    def __init__(
        self,
        sequences: NDArray[np.int64],
        token_ids: NDArray[np.int64],
        read: NDArray[np.bool_],
        documents: NDArray[np.int64] | None = None,
    ) -> None:
        if token_ids.shape != read.shape or token_ids.shape[0] != len(sequences):
            raise ValueError(
                f"{len(sequences)} sequences, token ids {token_ids.shape} and read {read.shape} do "
                "not fit; pass [row, position] arrays with one row per sequence"
            )
        if not (sequences[1:] > sequences[:-1]).all():
            raise ValueError("sequences do not ascend; sort tokenized_corpus by sequence")
        self.sequences = sequences
        self.context = token_ids.shape[1]
        self.token_ids = token_ids.reshape(-1)
        self.read = read.reshape(-1)
        number, self.n_documents = numbered_documents(documents, (len(sequences), self.context))
        self.document: NDArray[np.int64] = number.reshape(-1)

    @classmethod
    def of_pass(
        cls,
        corpus: pl.DataFrame,
        *,
        left_out: Collection[int],
        n_tokens: int,
        first_sequence: int = 0,
        outliers: pl.DataFrame | None = None,
        separator: Separator | None = None,
    ) -> "CorpusTokens":
        """The tokens that a feature pass of `n_tokens` tokens read.

        Args:
            corpus: columns sequence and token_ids of tokenized_corpus, at least what was read.
            left_out: ids left out wherever they stand, BOS among them.
            n_tokens: feature_statistics.n_tokens.
            first_sequence: sequence that the pass began with.
            outliers: columns sequence and position of activation_outliers, left out too.
            separator: what stands between documents; the corpus then has the column documents too.

        Raises:
            ValueError: the corpus has fewer tokens than were read.
        """
        corpus = corpus.filter(pl.col("sequence") >= first_sequence).sort("sequence")
        ids = token_matrix(corpus)
        valid: NDArray[np.bool_] = ~np.isin(ids, list(left_out))
        valid[:, 0] = False
        if outliers is not None:
            here = corpus.select("sequence").with_row_index("row").join(outliers, on="sequence")
            valid[here["row"].to_numpy(), here["position"].to_numpy()] = False
        count = np.cumsum(valid, dtype=np.int64).reshape(valid.shape)
        if not valid.size or count[-1, -1] < n_tokens:
            raise ValueError(
                f"the features were read over {n_tokens} tokens, the corpus given has "
                f"{count[-1, -1] if valid.size else 0}; pass the tokenized_corpus they come from"
            )
        read = valid & (count <= n_tokens)
        rows = int(np.flatnonzero(read.any(axis=1)).max(initial=-1)) + 1
        documents = None if separator is None else token_documents(corpus.head(rows), separator)
        return cls(corpus["sequence"].to_numpy()[:rows], ids[:rows], read[:rows], documents)

    @property
    def n_tokens(self) -> int:
        """Tokens read."""
        return int(self.read.sum())

    def cells(self, sequence: NDArray[np.int64], position: NDArray[np.int64]) -> Cells:
        """Cells of tokens given by sequence number and position.

        Raises:
            ValueError: a token was not read.
        """
        row = np.searchsorted(self.sequences, sequence).clip(max=len(self.sequences) - 1)
        cell: Cells = row * self.context + position.astype(np.int64)
        known = (self.sequences[row] == sequence) & (position < self.context) & (position >= 0)
        known[known] &= self.read[cell[known]]
        if not known.all():
            wrong = int((~known).argmax())
            raise ValueError(
                f"sequence {sequence[wrong]}, position {position[wrong]} is none of the tokens "
                "read; pass activations and corpus of the same feature pass"
            )
        return cell

    def row(self, cell: Cells) -> NDArray[np.int64]:
        """Row of each cell."""
        rows: NDArray[np.int64] = cell // self.context
        return rows

    def occurrences(self, token_id: int) -> Cells:
        """Cells of the read tokens with this id, ascending."""
        order, starts = self._index
        if not 0 <= token_id < len(starts) - 1:
            return np.zeros(0, dtype=np.int64)
        found: Cells = order[starts[token_id] : starts[token_id + 1]]
        return found

    @cached_property
    def next_same(self) -> Cells:
        """[cell] cell of the next read token with the same id in its sequence, else -1."""
        following = np.full(len(self.token_ids), -1, dtype=np.int64)
        order, _ = self._index
        here, there = order[:-1], order[1:]
        linked = (self.token_ids[here] == self.token_ids[there]) & (
            self.row(here) == self.row(there)
        )
        following[here[linked]] = there[linked]
        return following

    @cached_property
    def read_per_row(self) -> NDArray[np.int64]:
        """[row] read tokens of each sequence."""
        counts: NDArray[np.int64] = self.read.reshape(-1, self.context).sum(axis=1)
        return counts

    @cached_property
    def _index(self) -> tuple[Cells, NDArray[np.int64]]:
        """Read cells sorted by token id, then place; where each id starts."""
        cells = self.read.nonzero()[0]
        ids = self.token_ids[cells]
        order = cells[np.argsort(ids, kind="stable")]
        counts = np.bincount(ids) if len(ids) else np.zeros(1, dtype=np.int64)
        return order, np.concatenate([[0], np.cumsum(counts)])
