"""Heads that write the answer, or against it, at END of IOI prompts."""

import polars as pl
from torch import Tensor

from mechinterp_assets.heads.direct_effects import (
    DIRECT_EFFECT,
    OTHER_NAMES,
    EffectMoments,
    effect_activations,
)
from mechinterp_assets.heads.score_kinds import IoiScore
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.language_model import LanguageModel


class DirectEffect:
    """Direct effect END -> logits, IO minus S; mean over prompts."""

    def __init__(self, model: LanguageModel, pool: Tensor) -> None:
        self.activations = effect_activations(model)
        self._effects = EffectMoments(model, pool)

    def add(self, group: pl.DataFrame, ids: Tensor, kept: dict[str, Tensor]) -> None:
        self._effects.add(group, kept)

    def result(self) -> ScoreValues:
        return self._effects.result()


class NegativeEffect(DirectEffect):
    """The negative of it."""

    def result(self) -> ScoreValues:
        direct = super().result()
        return ScoreValues(-direct.value, direct.n, -direct.null_mean, direct.null_sd)


SCORES = (
    IoiScore(
        needs=("direct_effects",),
        name="ioi_direct_effect",
        definition=f"{DIRECT_EFFECT[0].upper()}{DIRECT_EFFECT[1:]}",
        value_range="logits",
        terms="prompts",
        null_distribution=OTHER_NAMES,
        source="Wang et al. 2022, arXiv 2211.00593, section 3.1",
        threshold=0.0,
        statistic=DirectEffect,
    ),
    IoiScore(
        needs=("direct_effects",),
        name="ioi_negative_effect",
        definition="The negative of ioi_direct_effect",
        value_range="logits",
        terms="prompts",
        null_distribution=OTHER_NAMES,
        source="Wang et al. 2022, arXiv 2211.00593, section 3.1",
        threshold=0.0,
        statistic=NegativeEffect,
    ),
)
