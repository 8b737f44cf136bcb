"""Which SAE features a task's logit difference depends on, to first order.

Belongs here: attribution of the logit difference to features at a position role. Does not belong
here: the choice of the largest (feature_choice.py), what ablating them does
(kinds/sae_feature_ablation.py), attribution of a feature's own activation (attribution/).

attribution_i = f_i d_i . dM/dz at the feature's layer and position, M = logit difference of the
clean run, raw weights: the first-order estimate of M(clean) - M(feature i ablated, error kept).
"""

from collections import Counter
from collections.abc import Mapping

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.interventions.feature_choice import FEATURE_ATTRIBUTION_SCHEMA
from mechinterp_assets.interventions.prompts import PromptGroup, check_prompts, prompt_groups
from mechinterp_assets.interventions.runs import hook_name
from mechinterp_assets.interventions.sites import Places, at_places
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import last_position
from mechinterp_assets.model.precision import float64
from mechinterp_assets.sae.base import SparseAutoencoder


def feature_attribution(
    model: LanguageModel,
    prompts: pl.DataFrame,
    saes: Mapping[int, SparseAutoencoder],
    *,
    position_role: str = "S2",
    batch_rows: int = 64,
) -> pl.DataFrame:
    """Mean attribution of every feature that is active at `position_role` in some prompt.

    prompts: rows of ioi_prompts or of one task, all with the role and with wrong tokens. Columns
    layer, feature, name_order (NULL for prompts without one), n (prompts of that order), n_active,
    mean_activation and attribution (means over these n): a row for each order in which the feature
    is active.
    """
    check_prompts(prompts, model.config)
    order_of = dict.fromkeys(prompts["prompt"].to_list())
    if "name_order" in prompts.columns:
        order_of = dict(prompts.select("prompt", "name_order").iter_rows())
    counts = Counter(order_of.values())
    totals = {
        (layer, order): [float64(torch.zeros(sae.d_sae, device=model.device)) for _ in range(3)]
        for layer, sae in saes.items()
        for order in counts
    }
    for group in prompt_groups(prompts, max_prompts=batch_rows, device=model.device):
        if position_role not in group.positions or (group.positions[position_role] < 0).any():
            raise InterventionError(f"some prompts have no {position_role}; leave them out")
        if not all(group.wrong):
            raise InterventionError("some prompts have no wrong tokens, so no logit difference")
        z, gradient = _z_and_gradient(model, group, sorted(saes))
        places = Places.of(group, position_role)
        for layer, sae in saes.items():
            x = at_places(z[layer], places).flatten(1)
            f = sae.encode(x.to(sae.W_enc.dtype))
            slope = at_places(gradient[layer], places).flatten(1).to(f.dtype) @ sae.W_dec.T
            for order in counts:
                own = torch.tensor([order_of[p] == order for p in group.prompt], device=f.device)
                values = ((f > 0), f, f * slope)
                for total, value in zip(totals[layer, order], values, strict=True):
                    total += float64(value[own].to(f.dtype)).sum(0)
    frames = []
    for (layer, order), (active, activation, attribution) in totals.items():
        n = counts[order]
        chosen = active.nonzero()[:, 0]
        frames.append(
            pl.DataFrame(
                {
                    "layer": [layer] * len(chosen),
                    "feature": chosen.tolist(),
                    "name_order": [order] * len(chosen),
                    "n": [n] * len(chosen),
                    "n_active": active[chosen].long().tolist(),
                    "mean_activation": (activation[chosen] / n).tolist(),
                    "attribution": (attribution[chosen] / n).tolist(),
                },
                schema=FEATURE_ATTRIBUTION_SCHEMA,
            )
        )
    empty = pl.DataFrame(schema=FEATURE_ATTRIBUTION_SCHEMA)
    return pl.concat([empty, *frames]).sort("layer", "feature", "name_order")


def _z_and_gradient(
    model: LanguageModel, group: PromptGroup, layers: list[int]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """z of layers and the gradient of the summed logit differences with respect to it."""
    z: dict[int, Tensor] = {}

    def watch(layer: int) -> NamedHook:
        def hook(value: Tensor, hook: object) -> Tensor:
            if not value.requires_grad:
                value = value.detach().requires_grad_()
            z[layer] = value
            return value

        return hook_name("z", layer), hook

    with torch.enable_grad():
        logits = model.raw.run_with_hooks(
            group.token_ids, fwd_hooks=[*map(watch, layers), ("unembed.hook_in", last_position)]
        )[:, -1]
        differences = [
            row[list(right)].mean() - row[list(other)].mean()
            for row, right, other in zip(logits, group.answers, group.wrong, strict=True)
        ]
        total = torch.stack(differences).sum()
        gradients = torch.autograd.grad(total, [z[layer] for layer in layers])
    detached = {layer: value.detach() for layer, value in z.items()}
    return detached, dict(zip(layers, gradients, strict=True))
