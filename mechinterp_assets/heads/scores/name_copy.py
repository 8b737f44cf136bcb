"""What heads write when they attend to a name: the name itself (movers) or against it.

Source: Wang et al. 2022 (arXiv 2211.00593), section 3.1 and appendix on negative name movers.
"""

from functools import partial

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.embeddings import normalised
from mechinterp_assets.heads.score_kinds import IoiScore
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.language_model import LanguageModel

TOP_TOKENS = 5
AFTER_LAYER_0 = "blocks.0.hook_resid_post"


class NameCopies:
    """Share of names that a head's OV circuit, times `sign`, puts among the top 5 tokens.

    x = residual stream after layer 0 at IO and at S1; o = x W_V W_O, normalised as the head would
    read x; tokens are ranked by ln_f(o) W_U + b_U, or of -o for sign -1. The constant b_V W_O is
    left out: it says nothing about the name. Heads of layer 0 come before MLP0 and have no row.
    n: two names per prompt. Processed weights.
    pool [name]: token ids of names. Null: another name of the pool, drawn uniformly for every item,
    in the place of the name; exact.
    """

    activations = (AFTER_LAYER_0,)

    def __init__(self, model: LanguageModel, pool: Tensor, *, sign: float) -> None:
        self._model, self._pool, self._sign = model, pool, sign
        self._reads: list[Tensor] = []
        self._names: list[Tensor] = []

    def add(self, group: pl.DataFrame, ids: Tensor, kept: dict[str, Tensor]) -> None:
        each = torch.arange(group.height)
        for column in ("pos_io", "pos_s1"):
            at = torch.tensor(group[column].to_list())
            self._reads.append(kept[AFTER_LAYER_0][each, at])
            self._names.append(ids[each, at])

    @torch.no_grad()
    def result(self) -> ScoreValues:
        read, name = normalised(self._model, torch.cat(self._reads)), torch.cat(self._names)
        return _share_in_top(self._model, read, name, self._pool, self._sign)


def _share_in_top(
    model: LanguageModel, read: Tensor, name: Tensor, pool: Tensor, sign: float
) -> ScoreValues:
    weights, n = model.weights, len(name)
    W_U, b_U = weights.W_U, weights.b_U
    layers, heads = weights.W_V.shape[:2]
    value = torch.zeros(layers, heads, dtype=torch.float64)
    applies = torch.ones(layers, heads, dtype=torch.bool)
    applies[0] = False  # nothing before layer 0 has told names apart
    null_mean, null_sd = torch.zeros_like(value), torch.zeros_like(value)
    own = pool == name[:, None]
    for layer in range(1, layers):
        for head in range(heads):
            out = sign * (read @ weights.W_V[layer, head] @ weights.W_O[layer, head])
            logits = normalised(model, out) @ W_U + b_U
            # Above the sixth largest: a head that writes nothing ties everywhere and hits nowhere.
            bar = logits.topk(TOP_TOKENS + 1, dim=-1).values[:, -1:]
            hit = (logits.gather(1, name[:, None].to(logits.device)) > bar)[:, 0].cpu()
            others = (logits[:, pool.to(logits.device)] > bar).cpu() & ~own
            chance = others.sum(dim=1).double() / (len(pool) - own.sum(dim=1))
            value[layer, head] = hit.double().mean()
            null_mean[layer, head] = chance.mean()
            null_sd[layer, head] = (chance * (1 - chance)).sum().sqrt() / n
    return ScoreValues(value, n, null_mean, null_sd, applies=applies)


SCORES = tuple(
    IoiScore(
        needs=("direct_effects",),
        name=name,
        definition=f"Share of names (IO and S1 of every prompt) among the top 5 tokens of {written}"
        ", x the normalised residual stream after layer 0 at the name, without the constant "
        "b_V W_O; heads of layer 0 have no row",
        value_range="0 to 1",
        terms="names, two per prompt",
        null_distribution="Another of the prompts' names in the place of the name; exact",
        source="Wang et al. 2022, arXiv 2211.00593, section 3.1",
        threshold=threshold,
        statistic=partial(NameCopies, sign=sign),
    )
    for name, written, threshold, sign in (
        ("name_copy", "ln_f(x W_V W_O) W_U + b_U", 0.95, 1.0),
        ("negative_copy", "ln_f(-x W_V W_O) W_U + b_U", 0.8, -1.0),
    )
)
