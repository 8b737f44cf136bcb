"""Heads that stand in for the movers: direct effects with the movers knocked out.

Source: Wang et al. 2022 (arXiv 2211.00593), section 3.4. Processed weights.
"""

from dataclasses import replace
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.cells import TemplateCell, template_cells
from mechinterp_assets.ablation.references import CellMeans
from mechinterp_assets.heads.direct_effects import (
    DIRECT_EFFECT,
    OTHER_NAMES,
    EffectMoments,
    effect_activations,
)
from mechinterp_assets.heads.mover_runs import z_names
from mechinterp_assets.heads.score_kinds import MoverPrompts, MoverScore
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import IOI
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups


@torch.no_grad()
def backup_effect(model: LanguageModel, prompts: MoverPrompts) -> ScoreValues:
    """Direct effects with z of the movers at END at its mean over ABC prompts of the template."""
    base, abc, movers = prompts.base, prompts.abc, prompts.movers
    max_prompts = prompts.max_prompts
    means = _template_means(model, abc, max_prompts)
    known = {cell.template for cell in means.n if isinstance(cell, TemplateCell)}
    if missing := sorted(set(base["template"]) - known):
        raise PromptError(
            f"templates {missing} have base prompts but no ABC prompts to take the mean of; make "
            "both variants in one call of ioi_prompts"
        )
    effects = EffectMoments(model, prompts.pool)
    for group, ids in equal_length_groups(base, max_prompts):
        cells = template_cells(group, IOI)
        hooks = [
            _set_at_end(layer, head, means.of(cells, layer)[:, head]) for layer, head in movers
        ]
        _, kept = run_and_keep(
            model.processed,
            ids.to(model.device),
            effect_activations(model),
            hooks,
            last_logits_only=True,
        )
        effects.add(group, kept)
    found = effects.result()
    applies = torch.ones_like(found.value, dtype=torch.bool)
    for layer, head in movers:
        applies[layer, head] = False
    dataset = f"{prompts.dataset} ({base.height}), {prompts.named_movers} mean-ablated"
    return replace(found, dataset=dataset, mode="mean_counterfactual_template", applies=applies)


# ---- private -------------------------------------------------------------------------------------


def _template_means(model: LanguageModel, abc: pl.DataFrame, max_prompts: int) -> CellMeans:
    """Mean z at END by template, [layer] of [head, d_head]."""
    means = CellMeans()
    for group, ids in equal_length_groups(abc, max_prompts):
        _, kept = run_and_keep(
            model.processed, ids.to(model.device), z_names(model), last_logits_only=True
        )
        means.add(template_cells(group, IOI), [kept[name][:, -1] for name in z_names(model)])
    return means


def _set_at_end(layer: int, head: int, target: Tensor) -> NamedHook:
    def hook(z: Tensor, hook: Any) -> Tensor:
        z[:, -1, head] = target.to(z)
        return z

    return f"blocks.{layer}.attn.hook_z", hook


SCORES = (
    MoverScore(
        name="ioi_backup_effect",
        definition="ioi_direct_effect while the movers are mean-ablated at END (z at its mean over "
        f"ABC prompts of the same template): {DIRECT_EFFECT}. Movers are the heads with the role "
        "name_mover, or those named by the setting movers of heads; they have no row. Absent where "
        "there are no movers, no ABC prompts or no logit difference (mean more than 3 standard "
        "errors above 0)",
        value_range="logits",
        terms="prompts",
        null_distribution=OTHER_NAMES,
        source="Wang et al. 2022, arXiv 2211.00593, section 3.4",
        threshold_share=0.02,
        compute=backup_effect,
    ),
)
