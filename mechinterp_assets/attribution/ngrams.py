"""n-grams that features fire on, from sparse activations.

Belongs here: which n-grams end at a token, and for each feature those it is active on most. An
n-gram lies within one sequence and holds no BOS.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mechinterp_assets.attribution.activation_stream import TokenGrid, whole_features
from mechinterp_assets.attribution.frames import list_column, token_texts
from mechinterp_assets.model.token_labels import joined_label

_ROWS_AT_ONCE = 2_000_000


def feature_ngrams(
    activations: Iterable[pl.DataFrame],
    tokens: TokenGrid,
    token_strings: list[str],
    *,
    max_n: int = 3,
    top: int = 10,
    min_active: int = 2,
) -> pl.DataFrame:
    """Frame `feature_ngrams` of one layer (without study and layer).

    For each feature and n, the `top` n-grams ending at a token that it is active on most often; of
    equals the rarer one in the text, then the one that comes first by token ids.

    Args:
        activations: frames with feature, sequence, position, activation, sorted by feature,
            sequence and position, cut anywhere.
        tokens: the tokens that the same feature pass read.
        token_strings: text of each token id.
        max_n: n-grams of 1 to max_n tokens.
        top: n-grams per feature and n.
        min_active: tokens at which a feature must be active with an n-gram for it to be listed.

    Raises:
        ValueError: a setting is out of range, the frames are not sorted, or an activation lies at a
            token that was not read.
    """
    if max_n < 1 or top < 1 or min_active < 1:
        raise ValueError(f"max_n {max_n}, top {top} and min_active {min_active} must be >= 1")
    grams = _ngrams(tokens, max_n)
    found = [pl.DataFrame(schema=_SCHEMA)]
    for frame in _gathered(whole_features(activations), _ROWS_AT_ONCE):
        feature = frame["feature"].to_numpy()
        cells = tokens.cells(frame["sequence"].to_numpy(), frame["position"].to_numpy())
        activation = frame["activation"].to_numpy()
        starts = np.flatnonzero(np.diff(feature, prepend=-1))
        for n, gram in enumerate(grams, start=1):
            counted = _count(gram, starts, cells, activation, top, min_active)
            found.append(_rows(feature[starts], n, gram, counted, token_strings))
    return pl.concat(found).sort("feature", "ngram_size", "rank")


# ---- private -------------------------------------------------------------------------------------

_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32(),
        "ngram_size": pl.Int32(),
        "rank": pl.Int32(),
        "token_ids": pl.List(pl.Int32()),
        "text": pl.String(),
        "n_active": pl.Int64(),
        "n_occurrences": pl.Int64(),
        "active_share": pl.Float64(),
        "rate": pl.Float64(),
        "mean_activation": pl.Float64(),
    }
)


@dataclass(frozen=True)
class _Grams:
    """The distinct n-grams of one n, in ascending order of their token ids.

    at: [cell] int32, the n-gram that ends at a cell of the grid; -1 where none does.
    token_ids: [gram, n] int32.
    occurrences: [gram] int64, tokens read at which it ends.
    """

    at: NDArray[np.int32]
    token_ids: NDArray[np.int32]
    occurrences: NDArray[np.int64]


@dataclass(frozen=True)
class _Counted:
    """Features (by their place in the block) with their n-grams, by place and rank; all [m]."""

    place: NDArray[np.int64]
    rank: NDArray[np.int64]
    gram: NDArray[np.int64]
    n_active: NDArray[np.int64]
    activation_sum: NDArray[np.float64]
    feature_active: NDArray[np.int64]


def _ngrams(tokens: TokenGrid, max_n: int) -> list[_Grams]:
    """n-grams for n = 1 to max_n. One of n tokens is known by its first n - 1 and its last."""
    vocabulary = int(tokens.token_ids.max(initial=0)) + 1
    grams: list[_Grams] = []
    ending = np.zeros(0, dtype=np.int32)
    for n in range(1, max_n + 1):
        if n == 1:
            prefix = np.where(tokens.read, 0, -1)
        else:
            # The n-gram's first n - 1 tokens end one place earlier in the same sequence.
            before = ending.reshape(tokens.read.shape)
            prefix = np.full(before.shape, -1, dtype=np.int64)
            prefix[:, 1:] = np.where(tokens.read[:, 1:], before[:, :-1], -1)
        cells = np.flatnonzero(prefix.ravel() >= 0)
        key = prefix.ravel()[cells].astype(np.int64) * vocabulary + tokens.token_ids.ravel()[cells]
        distinct, which, occurrences = np.unique(key, return_inverse=True, return_counts=True)
        ending = np.full(prefix.size, -1, dtype=np.int32)
        ending[cells] = which
        last = (distinct % vocabulary).astype(np.int32)[:, None]
        first = grams[-1].token_ids[distinct // vocabulary] if grams else last[:, :0]
        grams.append(_Grams(ending, np.hstack([first, last]), occurrences))
    return grams


def _gathered(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Fewer, larger frames of about `rows` rows."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        if waiting and sum(map(len, waiting)) + len(frame) > rows:
            yield pl.concat(waiting)
            waiting = []
        waiting.append(frame)
    if waiting:
        yield pl.concat(waiting)


def _count(
    gram: _Grams,
    starts: NDArray[np.int64],
    cells: NDArray[np.int64],
    activation: NDArray[np.float32],
    top: int,
    min_active: int,
) -> _Counted:
    """The n-grams that the features of one block are active on most; features begin at `starts`."""
    bounds = np.append(starts, len(cells))
    at = gram.at[cells]
    inside = np.flatnonzero(at >= 0)
    # Two transpositions of a sparse matrix sort by feature, then n-gram, in linear time.
    by_feature = csr_matrix(
        (activation[inside], at[inside], np.searchsorted(inside, bounds)),
        shape=(len(starts), len(gram.occurrences)),
    )
    ordered = by_feature.tocsc().tocsr()
    place = np.repeat(np.arange(len(starts)), np.diff(ordered.indptr))
    new = np.ones(len(place), dtype=bool)
    new[1:] = (place[1:] != place[:-1]) | (ordered.indices[1:] != ordered.indices[:-1])
    first = np.flatnonzero(new)
    n_active = np.diff(first, append=len(place))
    enough = n_active >= min_active
    begins, n_active = first[enough], n_active[enough]
    place, which = place[begins], ordered.indices[begins].astype(np.int64)

    order = np.lexsort((which, gram.occurrences[which], -n_active, place))
    place, which = place[order], which[order]
    run = np.flatnonzero(np.diff(place, prepend=-1))
    rank = np.arange(len(place)) - np.repeat(run, np.diff(run, append=len(place)))
    kept = rank < top
    order = order[kept]
    sums = _sums(ordered.data, begins[order], n_active[order])
    place = place[kept]
    return _Counted(place, rank[kept], which[kept], n_active[order], sums, np.diff(bounds)[place])


def _sums(
    values: NDArray[np.float32], begins: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[m] float64 sums of the stretches of `values` that begin and last as given."""
    if not len(begins):
        return np.zeros(0)
    offsets = np.cumsum(lengths) - lengths
    index = np.arange(int(lengths.sum())) + np.repeat(begins - offsets, lengths)
    sums: NDArray[np.float64] = np.add.reduceat(values[index].astype(np.float64), offsets)
    return sums


def _rows(
    features: NDArray[np.int32], n: int, gram: _Grams, counted: _Counted, texts: list[str]
) -> pl.DataFrame:
    token_ids = gram.token_ids[counted.gram]
    text = token_texts(texts, token_ids.ravel())
    parts = pl.DataFrame({f"{i}": text.gather_every(n, i) for i in range(n)})
    occurrences = gram.occurrences[counted.gram]
    lengths = np.full(len(token_ids), n, dtype=np.int64)
    return pl.DataFrame(
        {
            "feature": features[counted.place],
            "ngram_size": np.full(len(token_ids), n, dtype=np.int32),
            "rank": counted.rank,
            "token_ids": list_column("token_ids", pl.Series(token_ids.ravel()), lengths),
            "text": _joined(parts),
            "n_active": counted.n_active,
            "n_occurrences": occurrences,
            "active_share": counted.n_active / counted.feature_active,
            "rate": counted.n_active / occurrences,
            "mean_activation": counted.activation_sum / counted.n_active,
        }
    ).cast(_SCHEMA)


def _joined(parts: pl.DataFrame) -> pl.Series:
    """[row] text of the labels of each row; where one shows bytes, they may join to characters."""
    text = parts.select(pl.concat_str(pl.all()).alias("text"))["text"]
    with_bytes = np.flatnonzero(text.str.contains("\\", literal=True).to_numpy())
    if not len(with_bytes):
        return text
    return text.scatter(with_bytes, [joined_label(parts.row(int(row))) for row in with_bytes])
