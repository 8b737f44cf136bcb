"""The next token of one prompt when interventions are made.

Belongs here: one prompt, and another to patch from, as the runner of interventions takes them, and
what changes in the answer. Does not belong here: kinds and running them (interventions/).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.kinds.head_scaling import ScaleHead
from mechinterp_assets.interventions.parsing import parse_intervention
from mechinterp_assets.interventions.prompts import END
from mechinterp_assets.interventions.runner import edited_logits, run_interventions
from mechinterp_assets.interventions.sets import InterventionSet, Planned
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import BASE, TASK_PROMPTS_SCHEMA
from mechinterp_assets.sae.base import SparseAutoencoder

OTHER = "other"
CHANGES_SCHEMA = pl.Schema(
    {
        "token_id": pl.Int32(),
        "token": pl.String(),
        "before": pl.Float64(),
        "after": pl.Float64(),
        "logit_change": pl.Float64(),
    }
)


@dataclass(frozen=True)
class WhatIf:
    """What interventions change.

    intervention: its id, as in intervention_results; kl: KL(before || after) of the next token,
    nats; tokens: the likeliest before and after: token_id, token, before, after (probabilities),
    logit_change (after - before, both less their means over the vocabulary), likeliest after first.
    """

    intervention: str
    kl: float
    tokens: pl.DataFrame


def role_of(position: int) -> str:
    """Name of a position as interventions name it."""
    return f"p{position}"


def what_if(
    model: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    ids: Sequence[int],
    edits: Sequence[Any],
    strings: Sequence[str],
    other: Sequence[int] | None,
    matched: Mapping[int, int],
    k: int,
) -> WhatIf:
    """Edits made together on the prompt `ids`; arguments as for Exploration.what_if."""
    planned = _planned(edits)
    prompts = _frame(0, BASE, ids, {p: p for p in range(len(ids))})
    counterfactuals = None
    if other is not None:
        there = {p: matched.get(p, p) for p in range(len(ids))}
        inside = {p: q for p, q in there.items() if 0 <= q < len(other)}
        counterfactuals = _frame(1, OTHER, other, inside)
    context = EditContext(model, saes=saes)
    clean, edited = edited_logits(context, prompts, planned, counterfactuals=counterfactuals)
    return _changes(planned.id, clean[0].double().cpu(), edited[0].double().cpu(), strings, k)


def heads_ablated(model: LanguageModel, ids: Sequence[int], token: int) -> pl.DataFrame:
    """Exploration.heads_ablated of the prompt `ids`."""
    config = model.config
    edits = [
        ScaleHead(layer=layer, head=head, alpha=0.0, weights="raw")
        for layer in range(config.n_layers)
        for head in range(config.n_heads)
    ]
    prompts = _frame(0, BASE, ids, {}).with_columns(
        answer_token_ids=pl.lit([token], TASK_PROMPTS_SCHEMA["answer_token_ids"])
    )
    results = run_interventions(EditContext(model), prompts, edits)
    values = results.filter(pl.col("metric").is_in(["kl", "prob"])).select(
        "layer", "head", "metric", "patched"
    )
    return values.pivot("metric", index=["layer", "head"], values="patched").select(
        "layer", "head", ablation_kl="kl", ablated_probability="prob"
    )


# ---- private -------------------------------------------------------------------------------------


def _planned(edits: Sequence[Any]) -> Planned:
    """Edits as one intervention, on raw weights where a kind may run on them: SAEs do."""
    if not edits:
        raise InterventionError("there is no intervention; give at least one")
    parsed = [parse_intervention(edit) for edit in edits]
    raw = [
        one.model_copy(update={"weights": "raw"})
        if one.weights is None and one.default_weights != "raw" and "raw" in one.possible_weights
        else one
        for one in parsed
    ]
    if len(raw) == 1:
        return raw[0]
    return InterventionSet(name="what-if", members=tuple(raw))


def _frame(
    prompt: int, variant: str, ids: Sequence[int], positions: Mapping[int, int]
) -> pl.DataFrame:
    """A prompt whose positions all have a role: role p<n> stands at positions[n]."""
    row = {
        "task": "explore",
        "prompt": prompt,
        "pair_id": 0,
        "template": None,
        "variant": variant,
        "text": None,
        "token_ids": list(ids),
        "n_tokens": len(ids),
        "roles": [*map(role_of, positions), END],
        "positions": [*positions.values(), len(ids) - 1],
        "answer_token_ids": [],
        "wrong_token_ids": [],
    }
    return pl.DataFrame([row], schema=TASK_PROMPTS_SCHEMA)


def _changes(
    intervention: str, clean: Tensor, edited: Tensor, strings: Sequence[str], k: int
) -> WhatIf:
    k = min(k, len(clean))
    before, after = clean.log_softmax(-1), edited.log_softmax(-1)
    shown = torch.unique(torch.cat([after.topk(k).indices, before.topk(k).indices]))
    shown = shown[after[shown].argsort(descending=True, stable=True)]
    change = (edited - edited.mean()) - (clean - clean.mean())
    ids = shown.tolist()
    frame = pl.DataFrame(
        {
            "token_id": ids,
            "token": [strings[i] for i in ids],
            "before": before[shown].exp().tolist(),
            "after": after[shown].exp().tolist(),
            "logit_change": change[shown].tolist(),
        },
        schema=CHANGES_SCHEMA,
    )
    return WhatIf(intervention, float((before.exp() * (before - after)).sum()), frame)
