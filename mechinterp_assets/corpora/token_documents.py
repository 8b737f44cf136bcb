"""Which document each token of tokenized_corpus is of.

Belongs here: reading the documents of packed sequences back. Does not belong here: packing
(tokenize.py). The view document_spans says the same in SQL.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.corpora.tokenize import token_matrix


@dataclass(frozen=True)
class Separator:
    """BOS between documents, and whether sequences begin with one of their own."""

    bos_token_id: int
    prepend_bos: bool = True


def token_documents(sequences: pl.DataFrame, separator: Separator) -> NDArray[np.int64]:
    """Document of every token [sequence, position] int64.

    The BOS behind a document is the document's; one that a sequence begins with is that of the
    token behind it. Where documents contain BOS as a token (corpus.special_tokens: as_tokens), what
    follows it counts to later documents of the sequence, the last of them at most.

    Args:
        sequences: columns documents and token_ids of tokenized_corpus.
        separator: of the model.
    """
    ids = token_matrix(sequences)
    closes = ids == separator.bos_token_id
    if separator.prepend_bos:
        closes[:, 0] = False
    place = np.cumsum(closes, axis=1) - closes
    lengths = sequences["documents"].list.len().to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    of_sequence = sequences["documents"].explode().to_numpy().astype(np.int64)
    found: NDArray[np.int64] = of_sequence[
        starts[:, None] + np.minimum(place, lengths[:, None] - 1)
    ]
    return found


def numbered_documents(
    documents: NDArray[np.int64] | None, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], int]:
    """Documents [sequence, position] numbered from 0, and how many; None: every sequence is one."""
    if documents is None:
        documents = np.broadcast_to(np.arange(shape[0])[:, None], shape)
    found, number = np.unique(documents, return_inverse=True)
    return number.reshape(shape).astype(np.int64), len(found)
