"""What a score returns, and its rows in the tables head_scores and ioi_head_scores.

Belongs here: the value of one score for all heads with its null, and the frame made of it. Does not
belong here: how scores are computed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.modes import Mode, reference_of
from mechinterp_assets.model.names import head_names

HEAD_SCORES_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32,
        "head": pl.Int32,
        "score": pl.String,
        "mode": pl.String,
        "reference": pl.String,
        "value": pl.Float64,
        "n": pl.Int64,
        "null_mean": pl.Float64,
        "null_sd": pl.Float64,
        "threshold": pl.Float64,
        "dataset": pl.String,
    }
)


@dataclass(frozen=True)
class ScoreValues:
    """One score of every head, with its null: value, null_mean, null_sd [layer, head] float64.

    applies [layer, head]: heads that the score is of, None for all; others have no row, whatever
    their value. `dataset` says what the score was computed on, where the score chose that itself;
    `mode` which ablation it is a score of.
    """

    value: Tensor
    n: int
    null_mean: Tensor
    null_sd: Tensor
    dataset: str = ""
    mode: Mode | None = None
    applies: Tensor | None = None


def score_frame(
    name: str, values: ScoreValues, threshold: float | None, dataset: str = ""
) -> pl.DataFrame:
    """Rows of one score, by layer and head; `dataset` where the values do not name theirs.

    Raises ValueError where a head that the score applies to has no finite value or null: it would
    be missing, or rank first.
    """
    layers, heads = values.value.shape
    every = torch.ones(layers, heads, dtype=torch.bool)
    applies = every if values.applies is None else values.applies.cpu()
    numbers = torch.stack([values.value, values.null_mean, values.null_sd]).cpu()
    odd = (applies & ~numbers.isfinite().all(0)).nonzero().tolist()
    if odd:
        named = head_names(odd[:3])
        raise ValueError(
            f"score {name} is not finite for {len(odd)} of {int(applies.sum())} heads ({named}); "
            "the model's activations there are NaN or infinite"
        )
    columns = {
        "layer": torch.arange(layers).repeat_interleave(heads).numpy(),
        "head": torch.arange(heads).repeat(layers).numpy(),
        "value": values.value.flatten().numpy(),
        "null_mean": values.null_mean.flatten().numpy(),
        "null_sd": values.null_sd.flatten().numpy(),
    }
    return (
        pl.DataFrame(columns)
        .filter(pl.Series(applies.flatten().numpy()))
        .with_columns(
            score=pl.lit(name),
            mode=pl.lit(values.mode, pl.String),
            reference=pl.lit(reference_of(values.mode), pl.String),
            n=pl.lit(values.n),
            threshold=pl.lit(threshold, pl.Float64),
            dataset=pl.lit(values.dataset or dataset),
        )
        .select(HEAD_SCORES_SCHEMA.keys())
        .cast(HEAD_SCORES_SCHEMA)
    )


def joined_scores(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Rows of several scores in the tables' order; no rows where there are no scores."""
    empty = pl.DataFrame(schema=HEAD_SCORES_SCHEMA)
    return pl.concat([empty, *frames]).sort("layer", "head", "score")
