"""Heads that rest on position 0; what they take and write there is heads/sinks.py."""

import torch

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_kinds import PatternScore
from mechinterp_assets.heads.targeted_attention import DESTINATIONS, TargetedAttention


def attention_sink(n_layers: int, n_heads: int, data: TokenDataset) -> TargetedAttention:
    """Mean A[t, 0] over all t; null: a source from 0 .. t, position 0 included."""
    destinations = torch.arange(data.length)
    candidates = torch.ones(data.length, data.length, dtype=torch.bool).tril()
    return TargetedAttention(
        n_layers,
        n_heads,
        destinations,
        torch.zeros_like(destinations),
        candidates,
        len(data.token_ids),
    )


SCORES = (
    PatternScore(
        name="attention_sink",
        definition="Mean over t of A[t, 0], position 0 (BOS) included as destination and source",
        value_range="0 to 1",
        terms=DESTINATIONS,
        null_distribution="The source drawn uniformly from 0 .. t: exactly the value of uniform "
        "attention, mean over t of 1 / (t + 1); exact",
        source="Xiao et al. 2023, arXiv 2309.17453",
        threshold=0.3,
        dataset="plain",
        statistic=attention_sink,
    ),
)
