"""The registry of head scores and the frame `head_scores`.

Belongs here: which scores exist, on what data, with what threshold, and the passes over the model
that feed them. Does not belong here: how a score is computed (a file per family: attention_scores,
logit_scores, ov_scores, copy_suppression, successor), scores that need IOI prompts
(ioi_scores.py), and the role labels, which are the SQL view head_roles.

Adding a score: write a function in the file of its family, add a row to ATTENTION_SCORES or
MODEL_SCORES here, its definition to sql/tables/head_scores.sql and, where it gives a role, a row to
sql/views/head_role_conditions.sql.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads import attention_scores, copy_suppression, ov_scores, successor
from mechinterp_assets.heads.attention_scores import PatternReader, PatternStatistic
from mechinterp_assets.heads.datasets import (
    TokenDataset,
    random_tokens,
    repeated_random_tokens,
    text_windows,
)
from mechinterp_assets.heads.logit_scores import InductionLogitAttribution
from mechinterp_assets.heads.score_values import ScoreValues, all_scores, score_frame
from mechinterp_assets.heads.settings import HeadScoreSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import last_position

logger = logging.getLogger(__name__)

Hook = Callable[[Tensor, Any], Tensor | None]
DatasetKind = Literal["repeated", "plain"]


@dataclass(frozen=True)
class AttentionScore:
    """A score of attention patterns; `dataset` says which sequences it sees."""

    name: str
    dataset: DatasetKind
    threshold: float | None
    statistic: Callable[[int, int, TokenDataset], PatternStatistic]


@dataclass(frozen=True)
class ModelScore:
    """A score that makes its own passes: `compute(model, settings, text)`.

    It says itself what it was computed on, and returns None where the model cannot have it.
    """

    name: str
    threshold: float | None
    compute: Callable[[LanguageModel, HeadScoreSettings, TokenDataset], ScoreValues | None]


ATTENTION_SCORES: tuple[AttentionScore, ...] = (
    AttentionScore("previous_token", "plain", 0.4, attention_scores.previous_token),
    AttentionScore("duplicate_token", "repeated", 0.2, attention_scores.duplicate_token),
    AttentionScore("induction", "repeated", 0.4, attention_scores.induction),
    AttentionScore("attention_sink", "plain", 0.3, attention_scores.attention_sink),
    AttentionScore("positional", "plain", 0.7, attention_scores.positional),
)
INDUCTION_DLA = "induction_dla"
MODEL_SCORES: tuple[ModelScore, ...] = (
    ModelScore("copying", 0.5, ov_scores.copying),
    ModelScore("copying_effective", 0.5, ov_scores.copying_effective),
    ModelScore("copy_suppression_ov", 0.8, copy_suppression.suppression_ov),
    ModelScore("copy_suppression_qk", 0.5, copy_suppression.suppression_qk),
    ModelScore("copy_suppression_explained", None, copy_suppression.suppression_explained),
    ModelScore("successor", 0.4, successor.successor),
)


def score_names() -> tuple[str, ...]:
    """Every value that the column `score` of head_scores can have."""
    return (
        *(s.name for s in ATTENTION_SCORES),
        INDUCTION_DLA,
        *(s.name for s in MODEL_SCORES),
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
    attention sink and positional scores and CSPA; without it they use random tokens (the column
    `dataset` says which). Memory: one layer's patterns of one batch at a time.
    Raises DatasetError where the sequences cannot be made.
    """
    settings = settings or HeadScoreSettings()
    if settings.null_draws < 2:
        raise ValueError(f"null_draws is {settings.null_draws}; a null needs at least 2 draws")
    datasets = score_datasets(model, settings, text, text_name)
    frames: list[pl.DataFrame] = []
    for kind, data in datasets.items():
        scores = [score for score in ATTENTION_SCORES if score.dataset == kind]
        statistics = [
            score.statistic(model.config.n_layers, model.config.n_heads, data) for score in scores
        ]
        accumulate_patterns(model, data.token_ids, statistics, batch_size=settings.batch_size)
        for score, statistic in zip(scores, statistics, strict=True):
            frames.append(score_frame(score.name, statistic.result(), score.threshold, data.name))

    repeated = datasets["repeated"]
    dla = induction_logit_attribution(model, repeated, batch_size=settings.batch_size)
    frames.append(score_frame(INDUCTION_DLA, dla, None, repeated.name))

    for model_score in MODEL_SCORES:
        values = model_score.compute(model, settings, datasets["plain"])
        if values is not None:
            frames.append(score_frame(model_score.name, values, model_score.threshold))
    return all_scores(frames)


def score_datasets(
    model: LanguageModel, settings: HeadScoreSettings, text: Tensor | None, text_name: str
) -> dict[DatasetKind, TokenDataset]:
    """Repeated random tokens, and the text (plain) or, without text, random tokens."""
    n, seed = settings.n_sequences, settings.seed
    length = settings.sink_length
    return {
        "repeated": repeated_random_tokens(model, n_sequences=n, period=settings.period, seed=seed),
        "plain": random_tokens(model, n_sequences=n, length=length, seed=seed)
        if text is None
        else text_windows(model, text, length=length, name=text_name),
    }


@torch.no_grad()
def accumulate_patterns(
    model: LanguageModel,
    token_ids: Tensor,
    statistics: Sequence[PatternReader],
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
    hooks.append(("unembed.hook_in", last_position))
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
        model.processed.run_with_hooks(ids, fwd_hooks=[*hooks, ("unembed.hook_in", last_position)])
        for layer in range(model.config.n_layers):
            z = kept[f"blocks.{layer}.attn.hook_z"]
            statistic.update(layer, ids, z, kept["ln_final.hook_scale"])
    return statistic.result()


# ---- private -------------------------------------------------------------------------------------


def _batches(token_ids: Tensor, size: int, device: torch.device) -> Iterator[Tensor]:
    for batch in torch.split(token_ids, size):
        yield batch.to(device)
