"""Which features and examples get an attribution tree.

Belongs here: rules over the tables of features. Does not belong here: the trees (rdfa.py).
"""

from collections.abc import Set
from typing import Literal

import polars as pl

from mechinterp_assets.attribution.frozen_forward import RdfaError

SelectionRule = Literal["induction", "frequent", "strongest"]


def selected_features(
    statistics: pl.DataFrame, families: pl.DataFrame, n: int, rule: SelectionRule
) -> list[int]:
    """Up to `n` features that fired, ascending.

    induction: those labelled so (all required measures of the family pass), the most often active
    first; where there are fewer, the most often active others. frequent: the most often active.
    strongest: those with the largest activation. Of equals the lower index comes first.

    Args:
        statistics: feature_statistics of one layer (feature, n_active, max_activation).
        families: feature_families of the layer (feature, family, passes, required); for the rule
            induction.
        n: number of features.
        rule: as above.
    """
    fired = statistics.filter(pl.col("n_active") > 0)
    by = ["max_activation"] if rule == "strongest" else ["n_active"]
    if rule == "induction":
        labelled = (
            families.filter((pl.col("family") == "induction") & pl.col("required"))
            .group_by("feature")
            .agg(pl.col("meets_threshold").fill_null(False).all().alias("is_induction"))
        )
        fired = fired.join(labelled, on="feature", how="left").with_columns(
            pl.col("is_induction").fill_null(False)
        )
        by = ["is_induction", *by]
    descending = [True] * len(by) + [False]
    chosen = fired.sort(*by, "feature", descending=descending).head(n)
    return sorted(chosen["feature"].to_list())


def examples_of(
    top_examples: pl.LazyFrame, pairs: Set[tuple[int, int]], *, required: bool = False
) -> pl.DataFrame:
    """Rows of feature_top_examples of some (feature, rank).

    Raises:
        RdfaError: one of them is `required` and not there.
    """
    schema = {"feature": pl.Int32, "rank": pl.Int32}
    wanted = pl.LazyFrame(sorted(pairs), schema=schema, orient="row")
    found = top_examples.join(wanted, on=["feature", "rank"], how="semi").collect()
    missing = pairs - set(found.select("feature", "rank").rows())
    if required and missing:
        feature, rank = min(missing)
        raise RdfaError(
            f"rdfa.features: feature {feature} has no example of rank {rank} in "
            "feature_top_examples; name a lower rank, or a feature that fired"
        )
    return found
