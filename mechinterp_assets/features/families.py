"""The registry of feature-family measures and the frame `feature_families`.

Belongs here: which measures exist, their thresholds, and putting them together for a layer. Does
not belong here: how one is computed (induction.py, context.py, ngrams.py, source_relations.py) and
the labels, which are the SQL view feature_family_labels.

Adding a measure: write it in the file of its family, add a row to MEASURES and a line to _measure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.features import context, induction, ngrams, source_relations
from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.measures import (
    FAMILIES_SCHEMA,
    Measure,
    Measured,
    measured_frame,
)
from mechinterp_assets.features.source_relations import LogitTokens, SourceExamples
from mechinterp_assets.features.sparse_activations import SparseActivations

# Thresholds of K24 for induction; all others are heuristics of this project.
MEASURES: tuple[Measure, ...] = (
    Measure("induction", "induction_attribution", 0.6),
    Measure("induction", "induction_attribution_total", None, required=False),
    Measure("induction", "induction_per_occurrence", 0.6, min_n=5, strict=True),
    *(
        Measure("induction", name, 0.6, required=False, min_n=5, strict=True)
        for name in induction.BEHAVIOUR
        if name != "induction_per_occurrence"
    ),
    Measure("high_level_context", "run_length", 5.0, min_n=5),
    Measure("high_level_context", "density_where_active", 0.3, min_n=5),
    Measure("local_context", "near_dfa_share", 0.8),
    Measure("local_context", "source_distance", None, required=False),
    Measure("local_context", "run_end_token_share", None, required=False, min_n=5),
    Measure("duplicate_token", "repeats_current_token", 0.6),
    Measure("successor", "promotes_successor", 0.6),
    Measure("name_mover", "promotes_source_token", 0.6),
    Measure("name_mover", "promoted_names", 0.5),
    Measure("suppression", "suppresses_source_token", 0.6),
    Measure("suppression", "negative_share", 0.5, strict=True),
    Measure("single_token", "token_overlap", 0.5, min_n=5),
    Measure("n_gram", "ngram_overlap", 0.5, min_n=5),
)
NGRAM_SIZES = (2, 3)


@dataclass(frozen=True)
class LayerTables:
    """What the measures of one layer read, beside its activations.

    Attributes:
        tokens: the tokens that were read.
        token_strings: text of each token id.
        head_attribution: frame feature_head_attribution.
        logit_effects: frame feature_logit_effects.
        dfa: frame feature_dfa.
        induction_heads: heads of the layer with the role induction.
        seed: of the choice of induction examples.
    """

    tokens: CorpusTokens
    token_strings: list[str]
    head_attribution: pl.DataFrame
    logit_effects: pl.DataFrame
    dfa: pl.DataFrame
    induction_heads: list[int]
    seed: int = 0


def feature_families(activations: Iterable[pl.DataFrame], tables: LayerTables) -> pl.DataFrame:
    """Every measure of every feature that fired: the table feature_families of one layer.

    Args:
        activations: frames of feature_activations, each of whole features (see `feature_blocks`).
        tables: the other inputs, all of the same layer and feature pass.

    Raises:
        ValueError: activations or examples lie at tokens that were not read.
    """
    frames: list[pl.DataFrame] = []
    for frame in activations:
        block = SparseActivations.of_frame(frame, tables.tokens)
        for measure, values in _measure(block, tables):
            frames.append(measured_frame(measure, values))
    if not frames:
        return pl.DataFrame(schema=FAMILIES_SCHEMA)
    order = {measure.name: place for place, measure in enumerate(MEASURES)}
    return (
        pl.concat(frames)
        .sort("feature", pl.col("measure").replace_strict(order, return_dtype=pl.Int32))
        .select(*FAMILIES_SCHEMA)
    )


# ---- private -------------------------------------------------------------------------------------


def _measure(block: SparseActivations, tables: LayerTables) -> Iterator[tuple[Measure, Measured]]:
    features, tokens = block.features, tables.tokens
    effects = LogitTokens.of_frame(tables.logit_effects, features)
    examples = SourceExamples.of_frame(tables.dfa, tokens, features)
    texts = tables.token_strings
    promoted = effects.promoted[:, 0]
    largest, total = induction.induction_attribution(
        tables.head_attribution, tables.induction_heads, features
    )
    values = {
        "induction_attribution": largest,
        "induction_attribution_total": total,
        **{
            f"induction_{counted}{'_same_prefix' if same_prefix else ''}": _of_token(
                induction.induction_behaviour(
                    block,
                    promoted,
                    tokens,
                    counted=counted,
                    same_prefix=same_prefix,
                    seed=tables.seed,
                ),
                promoted,
                texts,
            )
            for counted in get_args(induction.Counted)
            for same_prefix in (False, True)
        },
        "run_length": context.run_length(block, tokens),
        "density_where_active": context.density_where_active(block, tokens),
        "near_dfa_share": context.near_dfa_share(examples),
        "source_distance": context.source_distance(examples),
        "run_end_token_share": context.run_end_token_share(block, tokens, texts),
        "repeats_current_token": source_relations.repeats_current_token(examples),
        "promotes_successor": source_relations.promotes_successor(examples, effects, texts),
        "promotes_source_token": source_relations.promotes_source_token(examples, effects),
        "promoted_names": source_relations.promoted_names(features, effects, texts),
        "suppresses_source_token": source_relations.suppresses_source_token(examples, effects),
        "negative_share": source_relations.negative_share(features, effects),
        "token_overlap": ngrams.ngram_overlap(block, tokens, texts, (1,)),
        "ngram_overlap": ngrams.ngram_overlap(block, tokens, texts, NGRAM_SIZES),
    }
    for measure in MEASURES:
        yield measure, values[measure.name]


def _of_token(values: Measured, promoted: NDArray[np.int64], texts: list[str]) -> Measured:
    """The same values with the text of the token they are about."""
    named = [texts[token] if token >= 0 else None for token in promoted]
    return Measured(
        feature=values.feature,
        value=values.value,
        n=values.n,
        x=values.x,
        null_value=values.null_value,
        text=named,
        documents=values.documents,
    )
