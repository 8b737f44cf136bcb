"""The registry of head scores and the frame `head_scores`.

Belongs here: which scores exist, on what data, with what threshold, and the passes over the model
that feed them. Does not belong here: how a score is computed (attention_scores.py, logit_scores.py,
ov_scores.py) and the role labels, which are the SQL view head_roles.

Adding a score: write its statistic in the file of its family and add a row to ATTENTION_SCORES,
LOGIT_SCORES or WEIGHT_SCORES.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads import attention_scores, ov_scores
from mechinterp_assets.heads.attention_scores import PatternStatistic, ScoreValues
from mechinterp_assets.heads.datasets import (
    TokenDataset,
    random_tokens,
    repeated_random_tokens,
    text_windows,
)
from mechinterp_assets.heads.logit_scores import InductionLogitAttribution
from mechinterp_assets.language_model import LanguageModel, Weights

logger = logging.getLogger(__name__)

Hook = Callable[[Tensor, Any], Tensor | None]
DatasetKind = Literal["repeated", "plain"]

HEAD_SCORES_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "score": pl.String,
    "value": pl.Float64,
    "n": pl.Int64,
    "null_mean": pl.Float64,
    "null_sd": pl.Float64,
    "threshold": pl.Float64,
    "dataset": pl.String,
}


@dataclass(frozen=True)
class HeadScoreSettings:
    """Sizes of the random data and of the nulls.

    n_sequences, period: repeated random tokens (BOS + 2 x period tokens); sink_length: T of the
    attention sink, previous-token and positional scores; batch_size: sequences in a forward pass;
    null_draws: rotations behind the null of weight scores.
    """

    n_sequences: int = 32
    period: int = 50
    sink_length: int = 64
    batch_size: int = 8
    null_draws: int = 20
    seed: int = 0


@dataclass(frozen=True)
class AttentionScore:
    """A score of attention patterns; `dataset` says which sequences it sees."""

    name: str
    dataset: DatasetKind
    threshold: float | None
    statistic: Callable[[int, int, TokenDataset], PatternStatistic]


@dataclass(frozen=True)
class WeightScore:
    """A score of processed weights; `compute(weights, null_draws=, seed=)`."""

    name: str
    threshold: float | None
    compute: Callable[..., ScoreValues]


ATTENTION_SCORES: tuple[AttentionScore, ...] = (
    AttentionScore("previous_token", "plain", 0.4, attention_scores.previous_token),
    AttentionScore("duplicate_token", "repeated", 0.2, attention_scores.duplicate_token),
    AttentionScore("induction", "repeated", 0.4, attention_scores.induction),
    AttentionScore("attention_sink", "plain", 0.3, attention_scores.attention_sink),
    AttentionScore("positional", "plain", 0.7, attention_scores.positional),
)
LOGIT_SCORES: tuple[str, ...] = ("induction_dla",)
WEIGHT_SCORES: tuple[WeightScore, ...] = (WeightScore("copying", 0.5, ov_scores.copying),)


def score_names() -> tuple[str, ...]:
    """Every value of the column `score`."""
    return (
        *(s.name for s in ATTENTION_SCORES),
        *LOGIT_SCORES,
        *(s.name for s in WEIGHT_SCORES),
    )


def head_scores(
    model: LanguageModel,
    settings: HeadScoreSettings | None = None,
    *,
    text: Tensor | None = None,
    text_name: str = "text",
) -> pl.DataFrame:
    """Every score of every head: the table head_scores, one row per head and score.

    Attention patterns come from raw weights; logit and weight scores use processed weights.
    `text` [sequence, position]: tokenized text that starts with BOS, for the previous-token,
    attention sink and positional scores; without it they use random tokens (the column `dataset`
    says which). Memory: one layer's patterns of one batch at a time.
    Raises DatasetError where the sequences cannot be made.
    """
    settings = settings or HeadScoreSettings()
    if settings.null_draws < 2:
        raise ValueError(f"null_draws is {settings.null_draws}; a null needs at least 2 draws")
    datasets = _datasets(model, settings, text, text_name)
    frames: list[pl.DataFrame] = []
    for kind, data in datasets.items():
        scores = [score for score in ATTENTION_SCORES if score.dataset == kind]
        statistics = [
            score.statistic(model.config.n_layers, model.config.n_heads, data) for score in scores
        ]
        accumulate_patterns(model, data.token_ids, statistics, batch_size=settings.batch_size)
        for score, statistic in zip(scores, statistics, strict=True):
            frames.append(_frame(score.name, statistic.result(), score.threshold, data.name))

    repeated = datasets["repeated"]
    dla = induction_logit_attribution(model, repeated, batch_size=settings.batch_size)
    frames.append(_frame("induction_dla", dla, None, repeated.name))

    weights: Weights = model.weights
    for weight_score in WEIGHT_SCORES:
        values = weight_score.compute(weights, null_draws=settings.null_draws, seed=settings.seed)
        name = f"processed weights ({settings.null_draws} null draws, seed {settings.seed})"
        frames.append(_frame(weight_score.name, values, weight_score.threshold, name))
    return pl.concat(frames).sort("layer", "head", "score")


@torch.no_grad()
def accumulate_patterns(
    model: LanguageModel,
    token_ids: Tensor,
    statistics: Sequence[PatternStatistic],
    *,
    batch_size: int,
) -> None:
    """Show every statistic the raw attention pattern of every layer, batch by batch."""

    def hook_of(layer: int) -> Hook:
        def hook(pattern: Tensor, hook: Any) -> None:
            for statistic in statistics:
                statistic.update(layer, pattern)

        return hook

    hooks: list[tuple[str, Hook]] = [
        (f"blocks.{layer}.attn.hook_pattern", hook_of(layer))
        for layer in range(model.config.n_layers)
    ]
    hooks.append(("unembed.hook_in", _last_position))
    for ids in _batches(token_ids, batch_size, model.device):
        model.raw.run_with_hooks(ids, fwd_hooks=hooks)


@torch.no_grad()
def induction_logit_attribution(
    model: LanguageModel, data: TokenDataset, *, batch_size: int
) -> ScoreValues:
    """Direct effect of each head on the next token's logit in the second half of RRT."""
    statistic = InductionLogitAttribution(model.weights, data)
    wanted = {f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)}
    wanted.add("ln_final.hook_scale")
    for ids in _batches(data.token_ids, batch_size, model.device):
        kept: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any, kept: dict[str, Tensor] = kept) -> None:
            kept[hook.name] = value

        hooks = [(name, keep) for name in wanted]
        model.processed.run_with_hooks(ids, fwd_hooks=[*hooks, ("unembed.hook_in", _last_position)])
        for layer in range(model.config.n_layers):
            z = kept[f"blocks.{layer}.attn.hook_z"]
            statistic.update(layer, ids, z, kept["ln_final.hook_scale"])
    return statistic.result()


# ---- private -------------------------------------------------------------------------------------


def _last_position(residual: Tensor, hook: Any) -> Tensor:
    """Unembed the last position only: no score here reads logits."""
    return residual[:, -1:]


def _batches(token_ids: Tensor, size: int, device: torch.device) -> Iterator[Tensor]:
    for batch in torch.split(token_ids, size):
        yield batch.to(device)


def _datasets(
    model: LanguageModel, settings: HeadScoreSettings, text: Tensor | None, text_name: str
) -> dict[DatasetKind, TokenDataset]:
    n, seed = settings.n_sequences, settings.seed
    length = settings.sink_length
    return {
        "repeated": repeated_random_tokens(model, n_sequences=n, period=settings.period, seed=seed),
        "plain": random_tokens(model, n_sequences=n, length=length, seed=seed)
        if text is None
        else text_windows(model, text, length=length, name=text_name),
    }


def _frame(name: str, values: ScoreValues, threshold: float | None, dataset: str) -> pl.DataFrame:
    layers, heads = values.value.shape
    return pl.DataFrame(
        {
            "layer": torch.arange(layers).repeat_interleave(heads).numpy(),
            "head": torch.arange(heads).repeat(layers).numpy(),
            "score": [name] * (layers * heads),
            "value": values.value.flatten().numpy(),
            "n": [values.n] * (layers * heads),
            "null_mean": values.null_mean.flatten().numpy(),
            "null_sd": values.null_sd.flatten().numpy(),
            "threshold": [threshold] * (layers * heads),
            "dataset": [dataset] * (layers * heads),
        },
        schema=HEAD_SCORES_SCHEMA,
    )
