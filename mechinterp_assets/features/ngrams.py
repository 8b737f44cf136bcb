"""Features of fixed word sequences: how nearly a feature is "these n tokens end here".

Belongs here: the best n-gram of a feature by overlap. K24 (section 3.3) mentions such features
among those it found; the threshold is a heuristic of this project.
"""

import numpy as np
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.measures import Measured
from mechinterp_assets.features.sparse_activations import SparseActivations
from mechinterp_assets.model.token_labels import joined_label
from mechinterp_assets.statistics.clustered_shares import ClusteredShares


def ngram_overlap(
    activations: SparseActivations,
    tokens: CorpusTokens,
    token_strings: list[str],
    sizes: tuple[int, ...],
) -> Measured:
    """Largest overlap of a feature with an n-gram of one of the sizes: Jaccard index of two sets.

    The sets: tokens at which the feature is active; tokens that end the n-gram. x: tokens in both,
    n: tokens in either. N-grams lie within read tokens (none spans BOS). Equal overlaps: the
    shorter n-gram, then the smaller token ids. null_value: the index expected when the feature's
    tokens are drawn at random from those read. text: the n-gram.
    """
    grams = [_gram_ids(tokens, size) for size in sizes]
    per_size = [_best(activations, tokens, gram) for gram in grams]
    values = np.stack([x / np.maximum(n, 1) for x, n, _, _ in per_size])
    chosen = values.argmax(axis=0)
    everyone = np.arange(len(activations.features))
    count, end = (np.stack([part[i] for part in per_size])[chosen, everyone] for i in (2, 3))
    expected = activations.n_active * (count / max(tokens.n_tokens, 1))
    union = activations.n_active + count - expected
    texts: list[str | None] = [
        joined_label(token_strings[t] for t in tokens.token_ids[e - sizes[c] + 1 : e + 1])
        if e >= 0
        else None
        for c, e in zip(chosen, end, strict=True)
    ]
    wanted = np.array(
        [grams[size][cell] if cell >= 0 else -1 for size, cell in zip(chosen, end, strict=True)]
    )
    documents = _by_document(activations, tokens, grams, chosen, wanted)
    return Measured.share_of_text(
        activations.features, documents, null_value=expected / np.maximum(union, 1), text=texts
    )


# ---- private -------------------------------------------------------------------------------------


def _best(
    activations: SparseActivations, tokens: CorpusTokens, gram: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """[feature] both, either, occurrences of the best n-gram, and a cell where it ends (or -1)."""
    inside = gram >= 0
    counts = np.bincount(gram[inside])
    first_end = np.full(len(counts), -1, dtype=np.int64)
    cells = np.flatnonzero(inside)[::-1]
    first_end[gram[cells]] = cells
    at = gram[activations.cell]
    kept = at >= 0
    # One integer per (feature, n-gram); sorting puts equal ones together, features in order.
    key = np.sort(activations.group[kept] * max(len(counts), 1) + at[kept])
    first = np.flatnonzero(np.diff(key, prepend=-1))
    both = np.diff(first, append=len(key))
    group, gram_of = np.divmod(key[first], max(len(counts), 1))
    either = activations.n_active[group] + counts[gram_of] - both
    overlap = both / either
    n = len(activations.features)
    result = (
        np.zeros(n, dtype=np.int64),
        activations.n_active.astype(np.int64),
        np.zeros(n, dtype=np.int64),
        np.full(n, -1, dtype=np.int64),
    )
    if not len(group):
        return result
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    largest = np.maximum.reduceat(overlap, begins)
    lengths = np.diff(begins, append=len(group))
    best = np.flatnonzero(overlap == np.repeat(largest, lengths))
    best = best[np.diff(group[best], prepend=-1) != 0]
    columns = (both, either, counts[gram_of], first_end[gram_of])
    for target, column in zip(result, columns, strict=True):
        target[group[best]] = column[best]
    return result


def _by_document(
    activations: SparseActivations,
    tokens: CorpusTokens,
    grams: list[NDArray[np.int64]],
    chosen: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> ClusteredShares:
    """Tokens in both sets, of those in either, by document; the n-gram wanted [feature]."""
    orders = [np.argsort(gram, kind="stable") for gram in grams]
    sorted_grams = [gram[order] for gram, order in zip(grams, orders, strict=True)]
    feature, document = activations.group, tokens.document[activations.cell]
    width = tokens.n_documents
    ends, of = [activations.cell[:0]], [feature[:0]]
    for index, (size, gram) in enumerate(zip(chosen.tolist(), wanted.tolist(), strict=True)):
        if gram >= 0:
            first, last = np.searchsorted(sorted_grams[size], [gram, gram + 1])
            ends.append(orders[size][first:last])
            of.append(np.full(last - first, index))
    end, owner = np.concatenate(ends), np.concatenate(of)
    at = np.stack([gram[activations.cell] for gram in grams])[
        chosen[feature], np.arange(len(feature))
    ]
    hit = (at == wanted[feature]) & (at >= 0)
    found, place = np.unique(
        np.concatenate([feature * width + document, owner * width + tokens.document[end]]),
        return_inverse=True,
    )
    n = len(found)
    both = np.bincount(place[: len(feature)][hit], minlength=n)
    return ClusteredShares.of_clusters(
        found // width, len(activations.features), both, np.bincount(place, minlength=n) - both
    )


def _gram_ids(tokens: CorpusTokens, size: int) -> NDArray[np.int64]:
    """[cell] dense id of the n-gram that ends at each cell; -1 where none does."""
    ids = np.where(tokens.read, tokens.token_ids, -1)
    gram = ids
    for _ in range(size - 1):
        before = np.full_like(gram, -1)
        before[1:] = gram[:-1]  # position 0 is never read, so no n-gram spans two sequences
        key = before * (int(ids.max()) + 1) + ids
        present = (before >= 0) & (ids >= 0)
        _, dense = np.unique(key[present], return_inverse=True)
        gram = np.full_like(ids, -1)
        gram[present] = dense
    return gram
