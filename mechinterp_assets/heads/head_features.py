"""The features that a head writes most, by decoder weights (K24 section 4.1, App. J).

Belongs here: ranking a layer's features by their attribution to each head, and a summary of what
each of them fires on and promotes. Does not belong here: head attribution itself
(attribution/head_attribution.py), nor how many meanings a head has (polysemanticity.py,
labels/heads.py).
"""

from typing import Any

import polars as pl

TOP_FEATURES = 10  # K24 labels the ten features with the largest attribution to a head
SUMMARY_TOKENS = 3

HEAD_FEATURES_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "rank": pl.Int32,
    "alive_rank": pl.Int32,
    "feature": pl.Int32,
    "attribution": pl.Float64,
    "is_alive": pl.Boolean,
    "n_active": pl.Int64,
    "density": pl.Float64,
    "frequent_tokens": pl.List(pl.String),
    "frequent_tokens_share": pl.Float64,
    "promoted_tokens": pl.List(pl.String),
}


def head_features(
    attribution: pl.DataFrame,
    statistics: pl.DataFrame,
    ngrams: pl.DataFrame,
    logit_effects: pl.DataFrame,
    *,
    layer: int,
    top: int = TOP_FEATURES,
) -> pl.DataFrame:
    """Rows of the table head_features of one layer (without study), sorted by head and rank.

    Features are ranked per head by attribution (K24 eq. 2), of equals the one with the smaller
    number first. Kept are those with rank < top, and those with alive_rank < top: the ranking among
    the features that fired, since a dead feature's decoder row says nothing about the head.

    Args:
        attribution: feature_head_attribution of the layer; features whose decoder row is zero have
            no attribution and take no part.
        statistics: feature_statistics: feature, n_active, density.
        ngrams: feature_ngrams: feature, n, rank, text, share.
        logit_effects: feature_logit_effects: feature, extreme, rank, token.
        layer: layer.
        top: features per head and ranking, >= 1.

    Raises:
        ValueError: top is not positive, or statistics lack a feature of attribution.
    """
    if top < 1:
        raise ValueError(f"top is {top}; keep at least one feature per head")
    written = attribution.drop_nulls("attribution").select("feature", "head", "attribution")
    known = statistics.select("feature", "n_active", "density")
    missing = written.join(known, on="feature", how="anti")["feature"].unique().sort().to_list()
    if missing:
        raise ValueError(
            f"statistics lack features {missing[:5]} ({len(missing)} in all); pass "
            "feature_statistics and feature_head_attribution of the same SAE"
        )
    ranked = (
        written.join(known, on="feature")
        .sort("head", "attribution", "feature", descending=[False, True, False])
        .with_columns(is_alive=pl.col("n_active") > 0)
        .with_columns(
            rank=pl.int_range(pl.len()).over("head"),
            alive_rank=pl.when("is_alive").then(
                pl.col("is_alive").cast(pl.Int64).cum_sum().over("head") - 1
            ),
        )
        .filter((pl.col("rank") < top) | (pl.col("alive_rank") < top).fill_null(False))
    )
    tokens = (
        ngrams.filter((pl.col("ngram_size") == 1) & (pl.col("rank") < SUMMARY_TOKENS))
        .sort("feature", "rank")
        .group_by("feature", maintain_order=True)
        .agg(frequent_tokens=pl.col("text"), frequent_tokens_share=pl.col("active_share").sum())
    )
    promoted = (
        logit_effects.filter((pl.col("extreme") == "top") & (pl.col("rank") < SUMMARY_TOKENS))
        .sort("feature", "rank")
        .group_by("feature", maintain_order=True)
        .agg(promoted_tokens=pl.col("token"))
    )
    empty = pl.lit([], pl.List(pl.String))
    return (
        ranked.join(tokens, on="feature", how="left")
        .join(promoted, on="feature", how="left")
        .with_columns(
            pl.col("frequent_tokens", "promoted_tokens").fill_null(empty),
            layer=pl.lit(layer, pl.Int32),
        )
        .select(pl.col(name).cast(kind) for name, kind in HEAD_FEATURES_SCHEMA.items())
        .sort("head", "rank")
    )
