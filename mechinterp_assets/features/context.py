"""Context features: how long a feature stays active, and how near it reads.

Belongs here: measures that tell features of a long stretch of text (high-level context) from those
of the last few tokens (local context). K24 (section 3.3) names these families by hand inspection
and gives no rule: the thresholds are heuristics of this project.
"""

import numpy as np
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.measures import Measured
from mechinterp_assets.features.source_relations import SourceExamples
from mechinterp_assets.features.sparse_activations import SparseActivations
from mechinterp_assets.statistics.clustered_shares import ClusteredShares

NEAR = 5


def run_length(activations: SparseActivations, tokens: CorpusTokens) -> Measured:
    """Mean length of a feature's runs: stretches of consecutive tokens at which it is active.

    n: runs. null_value: 1 / (1 - p), the mean run length of tokens drawn independently with the
    feature's density p within the sequences where it is active.
    """
    n_active = activations.n_active
    n_runs = np.add.reduceat(_begins_run(activations), activations.starts[:-1], dtype=np.int64)
    group, row = _active_rows(activations, tokens)
    density = n_active / np.bincount(group, tokens.read_per_row[row])
    with np.errstate(divide="ignore"):
        null = np.where(density < 1, 1 / (1 - density), n_active / n_runs)
    return Measured(
        feature=activations.features, value=n_active / n_runs, n=n_runs, null_value=null
    )


def density_where_active(activations: SparseActivations, tokens: CorpusTokens) -> Measured:
    """Share of tokens at which a feature is active, within the sequences where it is at all.

    null_value: its density over all tokens read.
    """
    return Measured.share_of_text(
        activations.features,
        _documents_where_active(activations, tokens),
        null_value=activations.n_active / tokens.n_tokens,
    )


def near_dfa_share(examples: SourceExamples) -> Measured:
    """Share of a feature's positive DFA that comes from the NEAR tokens before it and itself.

    Mean over its top examples with any positive attribution to a source other than BOS. n: those
    examples. null_value: the share of sources that near, the mean over the same examples.
    """
    positive = np.where(examples.candidate, examples.dfa.clip(min=0), 0.0)
    near = examples.candidate & (examples.distance <= NEAR)
    total = positive.sum(axis=1)
    counted = total > 0
    share = (positive * near).sum(axis=1)[counted] / total[counted]
    expected = near.sum(axis=1)[counted] / examples.candidate.sum(axis=1)[counted]
    return examples.mean_over_examples(share, expected, counted)


def run_end_token_share(
    activations: SparseActivations, tokens: CorpusTokens, texts: list[str]
) -> Measured:
    """Share of a feature's runs that end at its most frequent ending token, the text.

    A run's ending token is the first at which the feature is silent again. n: runs with one: those
    that end with their sequence, or before a token that was not read, have none. null_value: the
    token's share of all tokens read.
    """
    # Behind the last row is the first, which begins a run.
    last = np.roll(_begins_run(activations), -1)
    group, end = activations.group, activations.cell + 1
    inside = last & (end % tokens.context > 0)
    inside[inside] = tokens.read[end[inside]]
    width = int(tokens.token_ids.max()) + 1
    pairs, counts = np.unique(
        group[inside] * width + tokens.token_ids[end[inside]], return_counts=True
    )
    size = len(activations.features)
    token = np.full(size, -1)
    order = np.lexsort((pairs, -counts))[::-1]  # the largest, of equals the smallest id, comes last
    token[pairs[order] // width] = pairs[order] % width
    read = np.bincount(tokens.token_ids[tokens.read], minlength=width) / tokens.n_tokens
    documents = ClusteredShares.of_terms(
        group[inside],
        size,
        tokens.document[activations.cell[inside]],
        tokens.token_ids[end[inside]] == token[group[inside]],
    )
    return Measured.share_of_text(
        activations.features,
        documents,
        null_value=np.where(token >= 0, read[token], np.nan),
        text=[texts[one] if one >= 0 else None for one in token],
    )


def source_distance(examples: SourceExamples) -> Measured:
    """Mean distance, in tokens, of the strongest source of a feature's top examples from them.

    BOS apart; n: examples with any source. null_value: the mean distance of their sources.
    """
    counted: NDArray[np.bool_] = examples.candidate.sum(axis=1) > 0
    at = np.flatnonzero(counted)
    value = examples.distance[at, examples.strongest[at]].astype(np.float64)
    among = np.where(examples.candidate, examples.distance, 0).sum(axis=1)[at]
    return examples.mean_over_examples(value, among / examples.candidate.sum(axis=1)[at], counted)


# ---- private -------------------------------------------------------------------------------------


def _begins_run(activations: SparseActivations) -> NDArray[np.bool_]:
    """[row] whether a feature was silent on the token before, or not seen there."""
    begins = np.ones(len(activations.cell), dtype=bool)
    begins[1:] = np.diff(activations.cell) != 1
    begins[activations.starts[:-1]] = True
    return begins


def _active_rows(
    activations: SparseActivations, tokens: CorpusTokens
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Feature and row of every sequence in which a feature is active."""
    row = tokens.row(activations.cell)
    first = np.ones(len(row), dtype=bool)
    first[1:] = np.diff(row) != 0
    first[activations.starts[:-1]] = True
    return activations.group[first], row[first]


def _documents_where_active(
    activations: SparseActivations, tokens: CorpusTokens
) -> ClusteredShares:
    """Tokens at which a feature is active, of those in its sequences, by document."""
    n_documents = tokens.n_documents
    cells = np.flatnonzero(tokens.read)
    part, n_read = np.unique(
        tokens.row(cells) * n_documents + tokens.document[cells], return_counts=True
    )
    row_of_part, document = np.divmod(part, n_documents)
    group, row = _active_rows(activations, tokens)
    start, end = np.searchsorted(row_of_part, row), np.searchsorted(row_of_part, row, side="right")
    lengths = end - start
    # The parts start .. end of every pair of feature and row, one after the other.
    parts = np.arange(lengths.sum()) + np.repeat(start - np.cumsum(lengths) + lengths, lengths)
    key = np.repeat(group, lengths) * n_documents + document[parts]
    found, place = np.unique(key, return_inverse=True)
    active = np.searchsorted(
        found, activations.group * n_documents + tokens.document[activations.cell]
    )
    return ClusteredShares.of_clusters(
        found // n_documents,
        len(activations.features),
        np.bincount(active, minlength=len(found)),
        np.bincount(place, n_read[parts], len(found)),
    )
