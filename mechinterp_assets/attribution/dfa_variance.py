"""Direct feature attribution over a corpus: heads and sources that a feature's variation is of.

Belongs here: sums over all tokens at which features are active, from which means, variances and
shares of the variance of the pre-activation follow (K24 App. E.3, G, H, Fig. 12). Does not belong
here: attribution of single examples (dfa.py).

At a token where a feature is active, its pre-activation less the constant is the sum over heads k
and sources s of DFA(k, s). Summed over sources it has a part for each head, summed over heads one
for each class of sources. For a part p and the total t, the share of the variance of t that p
makes is cov(p, t) / var(t), which sums to 1 over heads, and over classes.

Sums are kept apart by activation interval, so that shares above any of the intervals' lower bounds
follow: n, sum t, sum t^2, sum p, sum p^2, sum p t. They are of fixed size, whatever the corpus.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.dfa import attention_of_layers
from mechinterp_assets.attribution.head_attribution import split_heads
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

# Classes of sources; the first that fits counts.
SOURCE_CLASSES = (
    "bos",
    "current",
    "main_source_token",
    "same_token",
    "after_same_token",
    "other",
)
DFA_VARIANCE_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32(),
        "interval": pl.Int32(),
        "activation_above": pl.Float64(),
        "head": pl.Int32(),
        "source_class": pl.String(),
        "n": pl.Int64(),
        "total_sum": pl.Float64(),
        "total_sum_squares": pl.Float64(),
        "part_sum": pl.Float64(),
        "part_sum_squares": pl.Float64(),
        "part_total_product": pl.Float64(),
        "main_source_token_id": pl.Int32(),
    }
)


@dataclass(frozen=True)
class ActiveTokens:
    """One sequence: token_ids [position]; feature, position [n] where features are active, and
    their activation [n].
    """

    token_ids: Tensor
    feature: Tensor
    position: Tensor
    activation: Tensor


def dfa_variance(
    model: LanguageModel,
    sae: SparseAutoencoder,
    layer: int,
    sequences: Iterable[ActiveTokens],
    max_activation: NDArray[np.float64],
    main_source: NDArray[np.int64],
    *,
    n_intervals: int,
) -> pl.DataFrame:
    """Frame feature_dfa_variance of one layer, without study and layer.

    Args:
        model: its raw view runs each sequence once, up to the layer.
        sae: on raw z of the layer.
        layer: its number.
        sequences: what is summed over.
        max_activation: [d_sae], whose n_intervals equal parts are the intervals; 0 where a feature
            never fired.
        main_source: [d_sae] token id that counts as a feature's main source; -1: none.
        n_intervals: of (0, max_activation], each without its lower and with its upper bound.
    """
    n_heads = model.config.n_heads
    n_parts = n_heads + len(SOURCE_CLASSES)
    cells = sae.d_sae * n_intervals
    parts = torch.zeros(3, cells, n_parts, dtype=torch.float64)
    totals = torch.zeros(3, cells, dtype=torch.float64)
    largest, main = torch.tensor(max_activation), torch.tensor(main_source)
    for one in sequences:
        if not len(one.feature):
            continue
        part = _parts(model, sae, layer, one, main).cpu().double()
        total = part[:, :n_heads].sum(1)
        within = (one.activation.double() / largest[one.feature] * n_intervals).ceil() - 1
        cell = one.feature * n_intervals + within.long().clamp(0, n_intervals - 1)
        for at, value in enumerate((torch.ones_like(total), total, total**2)):
            totals[at].index_add_(0, cell, value)
        for at, value in enumerate((part, part**2, part * total[:, None])):
            parts[at].index_add_(0, cell, value)
    return _frame(totals, parts, n_heads, n_intervals, max_activation, main_source)


# ---- private -------------------------------------------------------------------------------------


def _parts(
    model: LanguageModel, sae: SparseAutoencoder, layer: int, one: ActiveTokens, main: Tensor
) -> Tensor:
    """DFA by head, then by class of sources [n, n_heads + classes]."""
    attention = attention_of_layers(model, one.token_ids[None], [layer])[layer]
    device = attention.v.device
    feature, position = one.feature.to(device), one.position.to(device)
    used, which = torch.unique(feature, return_inverse=True)
    w = split_heads(sae.W_enc.detach().to(device)[:, used].T, model.config.n_heads)
    reads = torch.einsum("shd,uhd->uhs", attention.v[0].to(w.dtype), w)
    pattern = attention.pattern[0].to(w.dtype)
    by_head, by_class = [], []
    classes = _classes(one, main, model.bos_token_id).to(device)
    for block in torch.split(torch.arange(len(feature), device=device), 4096):
        dfa = pattern[:, position[block]].transpose(0, 1) * reads[which[block]]
        by_head.append(dfa.double().sum(2))
        of_source = dfa.double().sum(1)
        summed = of_source.new_zeros(len(block), len(SOURCE_CLASSES))
        by_class.append(summed.scatter_add_(1, classes[block], of_source))
    return torch.cat([torch.cat(by_head), torch.cat(by_class)], dim=1)


def _classes(one: ActiveTokens, main: Tensor, bos: int | None) -> Tensor:
    """Class of every source [n, position]; sources behind the destination have no attention."""
    ids = one.token_ids.cpu()
    own = ids[one.position][:, None]
    source = torch.arange(len(ids))
    before = torch.cat([torch.full((1,), -1), ids[:-1]])
    is_bos = source == 0
    if bos is not None:
        is_bos = is_bos | (ids == bos)
    fits = torch.stack(
        [
            is_bos.expand(len(own), -1),
            source == one.position[:, None],
            ids == main[one.feature][:, None],
            ids == own,
            before == own,
            torch.ones(len(own), len(ids), dtype=torch.bool),
        ]
    )
    return fits.int().argmax(0)


def _frame(
    totals: Tensor,
    parts: Tensor,
    n_heads: int,
    n_intervals: int,
    largest: NDArray[np.float64],
    main: NDArray[np.int64],
) -> pl.DataFrame:
    n_parts = parts.shape[2]
    cell = totals[0].nonzero()[:, 0].numpy()
    each, part = np.repeat(cell, n_parts), np.tile(np.arange(n_parts), len(cell))
    feature, interval = np.divmod(each, n_intervals)
    names = [*[None] * n_heads, *SOURCE_CLASSES]
    tokens = main[feature]
    return pl.DataFrame(
        {
            "feature": feature,
            "interval": interval,
            "activation_above": largest[feature] * interval / n_intervals,
            "head": pl.Series([p if p < n_heads else None for p in part], dtype=pl.Int32),
            "source_class": pl.Series([names[p] for p in part], dtype=pl.String),
            "n": totals[0].numpy()[each],
            "total_sum": totals[1].numpy()[each],
            "total_sum_squares": totals[2].numpy()[each],
            "part_sum": parts[0].numpy()[each, part],
            "part_sum_squares": parts[1].numpy()[each, part],
            "part_total_product": parts[2].numpy()[each, part],
            "main_source_token_id": pl.Series([t if t >= 0 else None for t in tokens.tolist()]),
        }
    ).cast(DFA_VARIANCE_SCHEMA)
