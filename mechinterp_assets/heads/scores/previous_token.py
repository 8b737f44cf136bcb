"""Previous-token heads."""

import torch

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_kinds import PatternScore
from mechinterp_assets.heads.targeted_attention import (
    ANOTHER_SOURCE,
    DESTINATIONS,
    TargetedAttention,
    targeted,
)


def previous_token(n_layers: int, n_heads: int, data: TokenDataset) -> TargetedAttention:
    """Mean A[i, i-1] for i >= 2; null: a source from 1 .. i other than i-1."""
    destinations = torch.arange(2, data.length)
    return targeted(n_layers, n_heads, data, destinations, destinations - 1)


SCORES = (
    PatternScore(
        name="previous_token",
        definition="Mean A[i, i-1]",
        value_range="0 to 1",
        terms=DESTINATIONS,
        null_distribution=ANOTHER_SOURCE,
        source="Elhage et al. 2021",
        threshold=0.4,
        dataset="plain",
        statistic=previous_token,
    ),
)
