"""The frame `head_scores`: every score that needs no IOI prompts, of every head.

Belongs here: the data, the passes over the model that scores share, and the frame. Does not belong
here: any one score (a file each in `scores/`), scores on IOI prompts (ioi_head_scores.py), roles,
which are the SQL view head_roles.
"""

import polars as pl
from torch import Tensor

from mechinterp_assets.heads.datasets import (
    TokenDataset,
    fitting_length,
    fitting_period,
    random_tokens,
    repeated_random_tokens,
    text_windows,
)
from mechinterp_assets.heads.pattern_pass import accumulate_patterns
from mechinterp_assets.heads.score_kinds import ModelScore, PatternScore, ScoreDatasets
from mechinterp_assets.heads.score_registry import scores_of, scores_that_hold
from mechinterp_assets.heads.score_values import joined_scores, score_frame
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.language_model import LanguageModel


def head_scores(
    model: LanguageModel,
    settings: HeadSettings | None = None,
    *,
    text: Tensor | None = None,
    text_name: str = "text",
) -> pl.DataFrame:
    """Every score of every head: the table head_scores, one row per head and score.

    Attention patterns come from raw weights; logit and weight scores use processed weights.
    `text` [sequence, position]: tokenized text that starts with BOS, for scores whose dataset is
    plain; without it they use random tokens (the column `dataset` says which).
    Raises DatasetError where the sequences cannot be made.
    """
    settings = settings or HeadSettings()
    if settings.null_draws < 2:
        raise ValueError(f"null_draws is {settings.null_draws}; a null needs at least 2 draws")
    datasets = score_datasets(model, settings, text, text_name)
    frames = _pattern_frames(model, settings, datasets)
    for score in scores_that_hold(ModelScore, model):
        values = score.compute(model, settings, datasets)
        if values is not None:
            frames.append(score_frame(score.name, values, score.threshold))
    return joined_scores(frames)


def score_datasets(
    model: LanguageModel, settings: HeadSettings, text: Tensor | None, text_name: str
) -> ScoreDatasets:
    """Repeated random tokens, and the text or, without text, random tokens.

    Sequences are shorter than the settings say where the context or the vocabulary is too small;
    the names of the data sets have their lengths.
    """
    n, seed = settings.sequences, settings.seed
    length = fitting_length(model, settings.sink_length)
    return ScoreDatasets(
        repeated=repeated_random_tokens(
            model,
            n_sequences=n,
            period=fitting_period(model, settings.repeat_length),
            seed=seed,
        ),
        plain=random_tokens(model, n_sequences=n, length=length, seed=seed)
        if text is None
        else text_windows(model, text, length=min(length, text.shape[1]), name=text_name),
    )


# ---- private -------------------------------------------------------------------------------------


def _pattern_frames(
    model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets
) -> list[pl.DataFrame]:
    """Rows of the scores of patterns, one pass over each dataset."""
    frames: list[pl.DataFrame] = []
    of_kind: dict[str, TokenDataset] = {"repeated": datasets.repeated, "plain": datasets.plain}
    for kind, data in of_kind.items():
        scores = [score for score in scores_of(PatternScore) if score.dataset == kind]
        statistics = [
            score.statistic(model.config.n_layers, model.config.n_heads, data) for score in scores
        ]
        accumulate_patterns(model, data.token_ids, statistics, batch_size=settings.batch_size)
        for score, statistic in zip(scores, statistics, strict=True):
            frames.append(score_frame(score.name, statistic.result(), score.threshold, data.name))
    return frames
