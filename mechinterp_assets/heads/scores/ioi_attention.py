"""What heads attend to from END of IOI prompts: IO, S1, S2."""

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.score_kinds import IoiScore
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64


class AttentionTo:
    """Mean attention from END to the position in `column` of ioi_prompts.

    Null: another position from 1 .. END, drawn uniformly for every prompt; exact.
    """

    def __init__(self, model: LanguageModel, column: str) -> None:
        layers = range(model.config.n_layers)
        self.activations = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
        self._column = column
        shape = (model.config.n_layers, model.config.n_heads)
        self._sum, self._null_sum, self._null_variance = torch.zeros(3, *shape, dtype=torch.float64)
        self._n = 0

    def add(self, group: pl.DataFrame, ids: Tensor, kept: dict[str, Tensor]) -> None:
        target, end = group[self._column], group["pos_end"]
        each = torch.arange(len(target))
        source, last = torch.tensor(target.to_list()), torch.tensor(end.to_list())
        for layer in range(self._sum.shape[0]):
            pattern = kept[f"blocks.{layer}.attn.hook_pattern"]
            rows = float64(pattern[each, :, last]).cpu()
            place = torch.arange(rows.shape[2])
            keep = (place >= 1) & (place <= last[:, None]) & (place != source[:, None])
            keep = keep[:, None].double()
            count = keep.sum(dim=2)
            mean = (rows * keep).sum(dim=2) / count
            variance = ((rows - mean[..., None]).square() * keep).sum(dim=2) / count
            self._sum[layer] += rows[each, :, source].sum(dim=0)
            self._null_sum[layer] += mean.sum(dim=0)
            self._null_variance[layer] += variance.sum(dim=0)
        self._n += len(target)

    def result(self) -> ScoreValues:
        return ScoreValues(
            self._sum / self._n,
            self._n,
            self._null_sum / self._n,
            self._null_variance.sqrt() / self._n,
        )


def _score(name: str, column: str, threshold: float | None) -> IoiScore:
    return IoiScore(
        name=f"ioi_attention_{name.lower()}",
        definition=f"Mean A[END, position of {name}]",
        value_range="0 to 1",
        terms="prompts",
        null_distribution="Another position from 1 .. END drawn uniformly for every prompt; exact",
        source="Wang et al. 2022, arXiv 2211.00593, section 3; the threshold is this project's",
        threshold=threshold,
        statistic=lambda model, pool: AttentionTo(model, column),
    )


SCORES = (
    _score("IO", "pos_io", 0.1),
    _score("S1", "pos_s1", None),
    _score("S2", "pos_s2", 0.1),
)
