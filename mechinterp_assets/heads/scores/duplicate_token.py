"""Duplicate-token heads."""

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_kinds import PatternScore
from mechinterp_assets.heads.targeted_attention import (
    ANOTHER_SOURCE,
    DESTINATIONS,
    TargetedAttention,
    second_half,
    targeted,
)


def duplicate_token(n_layers: int, n_heads: int, data: TokenDataset) -> TargetedAttention:
    """RRT: mean A[i, earlier position of the same token]; null: another source from 1 .. i."""
    destinations = second_half(data)
    return targeted(n_layers, n_heads, data, destinations, destinations - data.period)


SCORES = (
    PatternScore(
        name="duplicate_token",
        definition="Mean over the second half of RRT of A[i, earlier position of the same token]",
        value_range="0 to 1",
        terms=DESTINATIONS,
        null_distribution=ANOTHER_SOURCE,
        source="Wang et al. 2022, arXiv 2211.00593",
        threshold=0.2,
        dataset="repeated",
        statistic=duplicate_token,
    ),
)
