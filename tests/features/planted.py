"""Small corpora and activations written by hand, with slow readers of them."""

import numpy as np
import polars as pl

from mechinterp_assets.corpora.token_documents import Separator
from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.sparse_activations import SparseActivations

BOS = 0
WORDS = ["<bos>", *"abcdefghijklmnopqrstuvwxyz"]


def corpus(*texts: str, n_tokens: int | None = None) -> CorpusTokens:
    """One sequence per text: BOS, then one token per letter; `.` is a BOS within the sequence.

    A BOS ends a document, and so does the end of every second text.
    """
    width = max(map(len, texts)) + 1
    rows = [
        [BOS, *(BOS if c == "." else ord(c) - 96 for c in text)] + [BOS] * (width - 1 - len(text))
        for text in texts
    ]
    documents, last = [], 0
    for number, text in enumerate(texts):
        first = last + (number % 2 == 0)
        last = first + text.count(".")
        documents.append(list(range(first, last + 1)))
    frame = pl.DataFrame({"sequence": range(len(rows)), "token_ids": rows, "documents": documents})
    total = sum(id != BOS for row in rows for id in row)
    return CorpusTokens.of_pass(
        frame, left_out=(BOS,), n_tokens=n_tokens or total, separator=Separator(BOS)
    )


def active(*features: dict[tuple[int, int], float]) -> pl.DataFrame:
    """Frame of activations: per feature {(sequence, position): activation}."""
    rows = [
        (feature, sequence, position, value)
        for feature, places in enumerate(features)
        for (sequence, position), value in sorted(places.items())
    ]
    schema = {
        "feature": pl.Int32,
        "sequence": pl.Int64,
        "position": pl.Int32,
        "activation": pl.Float32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def random_case(
    seed: int, *, sequences: int = 40, letters: int = 5, length: int = 12, features: int = 6
) -> tuple[CorpusTokens, pl.DataFrame]:
    """Random text over few letters (so that much repeats) and random activations."""
    rng = np.random.default_rng(seed)
    alphabet = "abcdefghij"[:letters] + "."
    texts = ["".join(rng.choice(list(alphabet), length)) for _ in range(sequences)]
    tokens = corpus(*texts, n_tokens=None)
    read = [divmod(int(cell), tokens.context) for cell in np.flatnonzero(tokens.read)]
    chosen = [
        {place: float(rng.exponential()) + 0.01 for place in read if rng.random() < share}
        for share in rng.uniform(0.2, 0.8, features)
    ]
    return tokens, active(*chosen)


def sparse(frame: pl.DataFrame, tokens: CorpusTokens) -> SparseActivations:
    """The frame as SparseActivations."""
    return SparseActivations.of_frame(frame, tokens)


def fired(frame: pl.DataFrame, feature: int) -> dict[tuple[int, int], float]:
    """{(sequence, position): activation} of one feature, read row by row."""
    return {
        (sequence, position): value
        for f, sequence, position, value in frame.iter_rows()
        if f == feature
    }
