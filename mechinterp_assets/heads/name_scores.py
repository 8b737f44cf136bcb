"""What heads write when they attend to a name: the name itself (movers) or against it.

Belongs here: the copy scores of names in their prompts. Does not belong here: whether a head
attends to names and what that does to the answer (ioi_scores.py).

Source: Wang et al. 2022 (arXiv 2211.00593), section 3.1 and appendix on negative name movers.
"""

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.embeddings import normalised
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import equal_length_groups

TOP_TOKENS = 5


@dataclass(frozen=True)
class NameCopies:
    """Both scores of every head."""

    name_copy: ScoreValues
    negative_copy: ScoreValues


@torch.no_grad()
def name_copies(
    model: LanguageModel, prompts: pl.DataFrame, pool: Tensor, *, max_prompts: int = 64
) -> NameCopies:
    """Share of names that a head's OV circuit puts among the top 5 tokens, as written and negated.

    x = residual stream after layer 0 at IO and at S1; o = x W_V W_O, normalised as the head would
    read x; tokens are ranked by ln_f(o) W_U + b_U, or of -o for the negative score. The constant
    b_V W_O is left out: it says nothing about the name. Heads of layer 0 come before MLP0 and have
    no row. n: two names per prompt. Processed weights.
    pool [name]: token ids of names. Null: another name of the pool, drawn uniformly for every item,
    in the place of the name; exact.
    """
    reads, names = [], []
    for group, ids in equal_length_groups(prompts, max_prompts):
        _, kept = run_and_keep(
            model.processed,
            ids.to(model.device),
            ["blocks.0.hook_resid_post"],
            last_logits_only=True,
        )
        each = torch.arange(group.height)
        for column in ("pos_io", "pos_s1"):
            at = torch.tensor(group[column].to_list())
            reads.append(kept["blocks.0.hook_resid_post"][each, at])
            names.append(ids[each, at])
    read = normalised(model, torch.cat(reads))
    name = torch.cat(names)
    return NameCopies(
        _share_in_top(model, read, name, pool, 1.0), _share_in_top(model, read, name, pool, -1.0)
    )


def _share_in_top(
    model: LanguageModel, read: Tensor, name: Tensor, pool: Tensor, sign: float
) -> ScoreValues:
    weights, n = model.weights, len(name)
    layers, heads = weights.W_V.shape[:2]
    value = torch.full((layers, heads), torch.nan, dtype=torch.float64)
    null_mean, null_sd = torch.zeros_like(value), torch.zeros_like(value)
    own = pool == name[:, None]
    for layer in range(1, layers):
        for head in range(heads):
            out = sign * (read @ weights.W_V[layer, head] @ weights.W_O[layer, head])
            logits = normalised(model, out) @ weights.W_U + weights.b_U
            # Above the sixth largest: a head that writes nothing ties everywhere and hits nowhere.
            bar = logits.topk(TOP_TOKENS + 1, dim=-1).values[:, -1:]
            hit = (logits.gather(1, name[:, None].to(logits.device)) > bar)[:, 0].cpu()
            others = (logits[:, pool.to(logits.device)] > bar).cpu() & ~own
            chance = others.sum(dim=1).double() / (len(pool) - own.sum(dim=1))
            value[layer, head] = hit.double().mean()
            null_mean[layer, head] = chance.mean()
            null_sd[layer, head] = (chance * (1 - chance)).sum().sqrt() / n
    return ScoreValues(value, n, null_mean, null_sd)
