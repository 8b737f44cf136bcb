"""What a file of `scores/` declares: each score's definition, and how it is computed.

Belongs here: the form of SCORES, in the kinds that differ by what a score sees. Does not belong
here: any one score, the passes over the model that feed them (head_scores.py, ioi_head_scores.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import polars as pl
from torch import Tensor

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.pattern_pass import PatternReader
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.analyses import Analysis
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_names

Head = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score's row in the view head_score_definitions, the one place that defines it.

    name: value of the column `score`; definition: what is computed; value_range: between which
    values, or in which unit; terms: what is counted as n; null_distribution: what is drawn in its
    place, and whether moments are exact; source: paper; threshold: value above which a head meets
    the condition that the score stands for (None: it gives no role). needs: analyses that must hold
    of the model (model/analyses.py); where one does not, no head has a row.
    """

    name: str
    definition: str
    value_range: str
    terms: str
    null_distribution: str
    source: str = "this project"
    threshold: float | None = None
    needs: tuple[Analysis, ...] = ()


@dataclass(frozen=True)
class ScoreDatasets:
    """Token sequences that scores of head_scores see.

    repeated: BOS and random distinct tokens, repeated once (RRT); plain: text, or random tokens
    where there is none.
    """

    repeated: TokenDataset
    plain: TokenDataset


class PatternStatistic(PatternReader, Protocol):
    """Accumulates a score over batches of attention patterns."""

    def result(self) -> ScoreValues:
        """The score over everything added so far."""
        ...


@dataclass(frozen=True, kw_only=True)
class PatternScore(Score):
    """A score of raw attention patterns; all of them share one pass over `dataset`.

    statistic(n_layers, n_heads, data) accumulates it.
    """

    dataset: Literal["repeated", "plain"]
    statistic: Callable[[int, int, TokenDataset], PatternStatistic]


@dataclass(frozen=True, kw_only=True)
class ModelScore(Score):
    """A score of weights, or one that makes its own passes: compute(model, settings, datasets).

    Its values say what it was computed on; None where the model cannot have it.
    """

    compute: Callable[[LanguageModel, HeadSettings, ScoreDatasets], ScoreValues | None]


class IoiStatistic(Protocol):
    """Accumulates a score over groups of base IOI prompts of equal length, processed weights."""

    @property
    def activations(self) -> Sequence[str]:
        """Hook names that `add` wants to see."""
        ...

    def add(self, group: pl.DataFrame, ids: Tensor, kept: dict[str, Tensor]) -> None:
        """Rows of ioi_prompts, their token_ids [prompt, position] and activations by name."""
        ...

    def result(self) -> ScoreValues:
        """The score over everything added so far."""
        ...


@dataclass(frozen=True, kw_only=True)
class IoiScore(Score):
    """A score of the clean run of IOI prompts; all of them share one pass.

    statistic(model, pool) accumulates it; pool [name]: token ids of all names in the prompts.
    """

    statistic: Callable[[LanguageModel, Tensor], IoiStatistic]


@dataclass(frozen=True)
class MoverPrompts:
    """What scores relative to the movers see.

    base, abc: rows of ioi_prompts of these variants; movers: (layer, head); pool [name]: token ids
    of all names; patched_prompts: base prompts to use where every head is patched by itself;
    max_prompts, max_rows: rows of a clean and of a patched forward pass; dataset: its name.
    """

    base: pl.DataFrame
    abc: pl.DataFrame
    movers: tuple[Head, ...]
    pool: Tensor
    patched_prompts: int
    max_prompts: int
    max_rows: int
    dataset: str

    @property
    def named_movers(self) -> str:
        """`L9H6, L9H9`."""
        return head_names(sorted(self.movers))


@dataclass(frozen=True, kw_only=True)
class MoverScore(Score):
    """A score relative to the movers, on IOI prompts: compute(model, prompts).

    threshold_share: the threshold as a share of the mean logit difference of the untouched model.
    None where no head can have the score.
    """

    threshold_share: float
    compute: Callable[[LanguageModel, MoverPrompts], ScoreValues | None]
