"""Scores of heads on IOI prompts: the frame `ioi_head_scores`.

Belongs here: which of these scores exist and with what thresholds; direct effects and attention at
END. Does not belong here: names in the OV circuit (name_scores.py), scores that depend on which
heads are movers (mover_scores.py), role labels (the SQL view head_roles).

Source: Wang et al. 2022 (arXiv 2211.00593), section 3. Processed weights.
"""

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.heads.name_scores import name_copies
from mechinterp_assets.heads.score_values import ScoreValues, all_scores, score_frame
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups

THRESHOLDS: dict[str, float | None] = {
    "ioi_direct_effect": 0.0,
    "ioi_negative_effect": 0.0,
    "ioi_attention_io": 0.1,
    "ioi_attention_s1": None,
    "ioi_attention_s2": 0.1,
    "name_copy": 0.95,
    "negative_copy": 0.8,
}
MINIMUM_NAMES = 4
_ATTENTION_TARGETS = {
    "ioi_attention_io": "pos_io",
    "ioi_attention_s1": "pos_s1",
    "ioi_attention_s2": "pos_s2",
}


def ioi_head_scores(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    max_prompts: int = 64,
    dataset: str = "IOI prompts",
) -> pl.DataFrame:
    """Direct effects, attention at END and name copying of every head, over base IOI prompts.

    `prompts`: rows of table ioi_prompts with variant base. `max_prompts`: rows of a forward pass.
    Raises PromptError for prompts that cannot be run or name fewer than MINIMUM_NAMES people.
    """
    pool = name_pool(model, prompts)
    copies = name_copies(model, prompts, pool, max_prompts=max_prompts)
    found = {
        **end_scores(model, prompts, pool, max_prompts=max_prompts),
        "name_copy": copies.name_copy,
        "negative_copy": copies.negative_copy,
    }
    name = f"{dataset} ({prompts.height}, {len(pool)} names)"
    return all_scores(
        score_frame(score, values, THRESHOLDS[score], name) for score, values in found.items()
    )


def name_pool(model: LanguageModel, prompts: pl.DataFrame) -> Tensor:
    """Token ids of all names in the prompts [name], ascending. Raises PromptError."""
    check_prompts_fit(prompts, model)
    columns = [prompts["io_token_id"], prompts["s_token_id"]]
    pool = pl.concat([column.alias("id") for column in columns]).unique().sort()
    if len(pool) < MINIMUM_NAMES:
        raise PromptError(
            f"the prompts name {len(pool)} people; at least {MINIMUM_NAMES} are needed for the null"
            " (another name in place of the answer): give more prompts"
        )
    return torch.tensor(pool.to_list())


@torch.no_grad()
def end_scores(
    model: LanguageModel, prompts: pl.DataFrame, pool: Tensor, *, max_prompts: int = 64
) -> dict[str, ScoreValues]:
    """Direct effect END -> logits, IO minus S, and its negative; attention END -> IO, S1, S2.

    Direct effect: z W_O at END over the final norm's scale, times W_U of IO minus that of S; mean
    over prompts. Null: two different names of the pool, drawn uniformly for every prompt, in the
    place of IO and S; exact (mean 0).
    Attention: null: another position from 1 .. END, drawn uniformly for every prompt; exact.
    """
    effects = EffectMoments(model, pool)
    sums = {name: _AttentionSums(model) for name in _ATTENTION_TARGETS}
    layers = range(model.config.n_layers)
    wanted = [f"blocks.{i}.attn.hook_{what}" for i in layers for what in ("pattern", "z")]
    for group, ids in equal_length_groups(prompts, max_prompts):
        _, kept = run_and_keep(
            model.processed,
            ids.to(model.device),
            [*wanted, "ln_final.hook_scale"],
            last_logits_only=True,
        )
        effects.add(group, kept)
        for name, column in _ATTENTION_TARGETS.items():
            sums[name].add(group[column], group["pos_end"], kept)
    direct = effects.result()
    negative = ScoreValues(-direct.value, direct.n, -direct.null_mean, direct.null_sd)
    return {
        "ioi_direct_effect": direct,
        "ioi_negative_effect": negative,
        **{name: total.result() for name, total in sums.items()},
    }


class EffectMoments:
    """Direct effects on IO minus S with the moments of their null, summed over prompts."""

    def __init__(self, model: LanguageModel, pool: Tensor) -> None:
        self._weights = model.weights
        self._pool = pool
        self._columns = model.weights.W_U[:, pool.to(model.device)]
        shape = (model.config.n_layers, model.config.n_heads)
        self._sum = torch.zeros(shape, dtype=torch.float64)
        self._variance = torch.zeros_like(self._sum)
        self._n = 0

    def add(self, group: pl.DataFrame, kept: dict[str, Tensor]) -> None:
        """Prompts of equal length with their kept z [.., position, head, d_head] and scale."""
        each = torch.arange(group.height)
        end = torch.tensor(group["pos_end"].to_list())
        io, s = (
            torch.searchsorted(self._pool, torch.tensor(group[column].to_list()))
            for column in ("io_token_id", "s_token_id")
        )
        scale = kept["ln_final.hook_scale"][each, end]
        for layer in range(self._sum.shape[0]):
            z = kept[f"blocks.{layer}.attn.hook_z"][each, end] / scale[..., None]
            write = self._weights.W_O[layer] @ self._columns
            effect = float64(torch.einsum("bhe,hep->bhp", z, write)).cpu()
            self._sum[layer] += (effect[each, :, io] - effect[each, :, s]).sum(dim=0)
            # The difference of two names drawn without replacement: 2 x the unbiased variance.
            self._variance[layer] += 2 * effect.var(dim=2, correction=1).sum(dim=0)
        self._n += group.height

    def result(self) -> ScoreValues:
        """Mean over everything added so far."""
        return ScoreValues(
            self._sum / self._n,
            self._n,
            torch.zeros_like(self._sum),
            self._variance.sqrt() / self._n,
        )


class _AttentionSums:
    def __init__(self, model: LanguageModel) -> None:
        shape = (model.config.n_layers, model.config.n_heads)
        self._sum, self._null_sum, self._null_variance = torch.zeros(3, *shape, dtype=torch.float64)
        self._n = 0

    def add(self, target: pl.Series, end: pl.Series, kept: dict[str, Tensor]) -> None:
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
