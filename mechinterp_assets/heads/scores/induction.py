"""Induction heads, by what they attend to; what they write is induction_dla.py."""

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_kinds import PatternScore
from mechinterp_assets.heads.targeted_attention import (
    ANOTHER_SOURCE,
    DESTINATIONS,
    TargetedAttention,
    second_half,
    targeted,
)


def induction(n_layers: int, n_heads: int, data: TokenDataset) -> TargetedAttention:
    """RRT: mean A[i, position after the earlier same token]; null: another source from 1 .. i."""
    destinations = second_half(data)
    return targeted(n_layers, n_heads, data, destinations, destinations - data.period + 1)


SCORES = (
    PatternScore(
        name="induction",
        definition="Mean over the second half of RRT of A[i, position after the earlier one of the "
        "same token]",
        value_range="0 to 1",
        terms=DESTINATIONS,
        null_distribution=ANOTHER_SOURCE,
        source="Olsson et al. 2022, arXiv 2209.11895",
        threshold=0.4,
        dataset="repeated",
        statistic=induction,
    ),
)
