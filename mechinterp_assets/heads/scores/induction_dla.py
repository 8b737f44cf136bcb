"""Induction heads, by what they write: their direct effect on the logits (DLA)."""

from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_kinds import ModelScore, ScoreDatasets
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import last_position
from mechinterp_assets.model.precision import float64
from mechinterp_assets.model.weights import Weights


class InductionLogitAttribution:
    """RRT: direct effect of each head on the logit of the token that comes next.

    At every position i of the second half but the last, the head's output z_i W_O (processed
    weights, no bias) over the final norm's scale at i, times the W_U column of the next token. W_U
    is centred for LayerNorm models, so the effect is relative to the mean logit. In logits.
    Null: the next token replaced by another token of the same sequence, drawn uniformly and
    independently for every (sequence, i); exact moments as in targeted_attention.py.
    """

    def __init__(self, weights: Weights, data: TokenDataset) -> None:
        self._W_O, self._W_U = weights.W_O, weights.W_U
        self._period = data.period
        self.positions = torch.arange(data.period + 1, data.length - 1)
        self.n = len(data.token_ids) * len(self.positions)
        layers, heads = weights.W_O.shape[:2]
        self._sum = torch.zeros(layers, heads, dtype=torch.float64)
        self._null_sum = torch.zeros_like(self._sum)
        self._null_variance_sum = torch.zeros_like(self._sum)

    def update(self, layer: int, token_ids: Tensor, z: Tensor, scale: Tensor) -> None:
        """Add a batch: token_ids [batch, position], z [batch, position, head, d_head] of one layer,
        scale [batch, position, 1] of the final norm."""
        columns = self._W_U.T[token_ids[:, 1 : self._period + 1]]
        normalised = z[:, self.positions] / scale[:, self.positions, :, None]
        out = torch.einsum("bihe,hed->bihd", normalised, self._W_O[layer])
        effect = float64(torch.einsum("bihd,bkd->bhik", out, columns))
        # Position period + 1 + r holds token r of the block, so token r + 1 comes next.
        place = torch.arange(self._period - 1, device=effect.device)
        hit = effect[:, :, place, place + 1]
        others = self._period - 1
        mean = (effect.sum(dim=3) - hit) / others
        square = (effect.square().sum(dim=3) - hit.square()) / others
        self._sum[layer] += hit.sum(dim=(0, 2)).cpu()
        self._null_sum[layer] += mean.sum(dim=(0, 2)).cpu()
        self._null_variance_sum[layer] += (square - mean.square()).sum(dim=(0, 2)).cpu()

    def result(self, dataset: str) -> ScoreValues:
        """The score over everything added so far."""
        return ScoreValues(
            value=self._sum / self.n,
            n=self.n,
            null_mean=self._null_sum / self.n,
            null_sd=self._null_variance_sum.clamp_min(0).sqrt() / self.n,
            dataset=dataset,
        )


@torch.no_grad()
def induction_logit_attribution(
    model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets
) -> ScoreValues:
    """Direct effect of each head on the next token's logit in the second half of RRT."""
    data = datasets.repeated
    statistic = InductionLogitAttribution(model.weights, data)
    wanted = {f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)}
    wanted.add("ln_final.hook_scale")
    for batch in torch.split(data.token_ids, settings.batch_size):
        ids = batch.to(model.device)
        kept: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any, kept: dict[str, Tensor] = kept) -> None:
            kept[hook.name] = value

        hooks = [(name, keep) for name in wanted]
        model.processed.run_with_hooks(ids, fwd_hooks=[*hooks, ("unembed.hook_in", last_position)])
        for layer in range(model.config.n_layers):
            z = kept[f"blocks.{layer}.attn.hook_z"]
            statistic.update(layer, ids, z, kept["ln_final.hook_scale"])
    return statistic.result(data.name)


SCORES = (
    ModelScore(
        needs=("direct_effects",),
        name="induction_dla",
        definition="Direct effect of the head on the logit of the next token in the second half of "
        "RRT: z W_O over the final norm's scale, times the W_U column; processed weights",
        value_range="logits",
        terms="(sequence, destination) pairs",
        null_distribution="The next token replaced by another token of the sequence; exact",
        source="Kissane et al. 2024, arXiv 2406.17759, section 4.2",
        compute=induction_logit_attribution,
    ),
)
