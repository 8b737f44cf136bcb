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

NEAR = 5


def run_length(activations: SparseActivations, tokens: CorpusTokens) -> Measured:
    """Mean length of a feature's runs: stretches of consecutive tokens at which it is active.

    n: runs. null_value: 1 / (1 - p), the mean run length of tokens drawn independently with the
    feature's density p within the sequences where it is active.
    """
    n_active = activations.n_active
    new_run = np.ones(len(activations.cell), dtype=bool)
    new_run[1:] = np.diff(activations.cell) != 1
    new_run[activations.starts[:-1]] = True
    n_runs = np.add.reduceat(new_run, activations.starts[:-1], dtype=np.int64)
    _, n_there = _sequences(activations, tokens)
    density = n_active / n_there
    with np.errstate(divide="ignore"):
        null = np.where(density < 1, 1 / (1 - density), n_active / n_runs)
    return Measured(
        feature=activations.features, value=n_active / n_runs, n=n_runs, null_value=null
    )


def density_where_active(activations: SparseActivations, tokens: CorpusTokens) -> Measured:
    """Share of tokens at which a feature is active, within the sequences where it is at all.

    null_value: its density over all tokens read.
    """
    _, n_there = _sequences(activations, tokens)
    return Measured.share(
        activations.features,
        activations.n_active,
        n_there,
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


# ---- private -------------------------------------------------------------------------------------


def _sequences(
    activations: SparseActivations, tokens: CorpusTokens
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[feature] sequences in which each feature is active, and tokens read in them."""
    row = tokens.row(activations.cell)
    first = np.ones(len(row), dtype=bool)
    first[1:] = np.diff(row) != 0
    first[activations.starts[:-1]] = True
    count = np.add.reduceat(first, activations.starts[:-1], dtype=np.int64)
    there = np.where(first, tokens.read_per_row[row], 0)
    return count, np.add.reduceat(there, activations.starts[:-1])
