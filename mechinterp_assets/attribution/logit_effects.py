"""Which tokens a feature's decoder direction promotes and suppresses through the direct path.

Belongs here: d_i W_O W_U and its extreme tokens. The scale of the final LayerNorm is left out: it
depends on the residual stream of each token, is positive, and so changes no ranking.
"""

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.attribution.frames import token_texts
from mechinterp_assets.attribution.head_attribution import split_heads

DIRECTIONS = ("top", "bottom")


def logit_effects(W_dec: Tensor, W_O: Tensor, W_U: Tensor) -> Tensor:
    """Direct effect of decoder rows on the logits [feature, d_vocab]: d_i W_O W_U.

    Args:
        W_dec: [feature, n_heads * d_head], rows in z space, used as they are (not normalised).
        W_O: [head, d_head, d_model] of the layer; processed weights.
        W_U: [d_model, d_vocab]; processed weights, which contain the final LayerNorm's weight.

    Raises:
        ValueError: the widths do not fit.
    """
    n_heads, d_head, d_model = W_O.shape
    if W_dec.shape[-1] != n_heads * d_head or W_U.shape[0] != d_model:
        raise ValueError(
            f"W_dec {tuple(W_dec.shape)}, W_O {tuple(W_O.shape)} and W_U {tuple(W_U.shape)} do not "
            "fit; pass an SAE on z_cat of this model and the W_O of its layer"
        )
    directions = split_heads(W_dec.to(W_O), n_heads)
    return torch.einsum("fhd,hdm->fm", directions, W_O) @ W_U.to(W_O)


def feature_logit_effects(
    W_dec: Tensor,
    W_O: Tensor,
    W_U: Tensor,
    token_strings: list[str],
    *,
    k: int = 10,
    workspace_bytes: int = 128 * 2**20,
) -> pl.DataFrame:
    """Frame `feature_logit_effects` of one layer (without study and layer).

    The k largest and the k smallest effects of every feature with a nonzero decoder row; equal
    effects are ranked by token id. Arguments as in `logit_effects`.

    Args:
        token_strings: text of each token id.
        k: tokens per direction, at most d_vocab.
        workspace_bytes: size of one block of effects [features, d_vocab] float32.

    Raises:
        ValueError: the widths do not fit, or k is out of range.
    """
    d_vocab = W_U.shape[1]
    if not 1 <= k <= d_vocab:
        raise ValueError(f"k is {k}; give 1 to {d_vocab} (the size of the vocabulary)")
    nonzero = (W_dec != 0).any(dim=1).nonzero().squeeze(1)
    size = max(1, workspace_bytes // (4 * d_vocab))
    effects: dict[str, list[Tensor]] = {name: [] for name in DIRECTIONS}
    tokens: dict[str, list[Tensor]] = {name: [] for name in DIRECTIONS}
    with torch.no_grad():
        for rows in torch.split(nonzero, size):
            block = logit_effects(W_dec[rows], W_O, W_U)
            for name, sign in zip(DIRECTIONS, (1, -1), strict=True):
                largest, token = _top_tokens(block if sign == 1 else -block, k)
                effects[name].append(sign * largest.double().cpu())
                tokens[name].append(token.cpu())
    return pl.concat(
        [
            _frame(name, nonzero.cpu(), effects[name], tokens[name], token_strings, k)
            for name in DIRECTIONS
        ]
    ).sort("feature", "extreme", "rank")


def logit_histograms(
    W_dec: Tensor, W_O: Tensor, W_U: Tensor, *, bins: int = 50, workspace_bytes: int = 128 * 2**20
) -> tuple[Tensor, Tensor]:
    """Histograms of each feature's logit effects over the whole vocabulary.

    Bins have equal width between the smallest and the largest effect of the feature; the largest
    belongs to the last bin. Arguments as in `logit_effects` and `feature_logit_effects`.

    Returns:
        Counts [feature, bins] int64, and the centres of the bins [feature, bins] float64.
    """
    counts, centres = [], []
    size = max(1, workspace_bytes // (4 * W_U.shape[1]))
    with torch.no_grad():
        for rows in torch.split(W_dec, size):
            effects = logit_effects(rows, W_O, W_U)
            low, high = effects.amin(dim=1, keepdim=True), effects.amax(dim=1, keepdim=True)
            width = (high - low) / bins
            place = ((effects - low) / width.clamp(min=torch.finfo(width.dtype).tiny)).long()
            place.clamp_(max=bins - 1)
            found = torch.zeros(len(rows), bins, dtype=torch.int64, device=place.device)
            found.scatter_add_(1, place, torch.ones_like(place))
            counts.append(found.cpu())
            steps = torch.arange(bins, device=place.device) + 0.5
            centres.append((low.double() + width.double() * steps).cpu())
    return torch.cat(counts), torch.cat(centres)


# ---- private -------------------------------------------------------------------------------------


def _top_tokens(effects: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row and their columns; equal values in column order."""
    values, columns = effects.topk(k, dim=1)
    # topk does not define which of equal values it takes. Where more columns hold the k-th value
    # than it took, take them from the left.
    threshold = values[:, -1:]
    ambiguous = (effects == threshold).sum(dim=1) > (values == threshold).sum(dim=1)
    for row in ambiguous.nonzero().squeeze(1).tolist():
        above = (effects[row] > threshold[row]).nonzero().squeeze(1)
        equal = (effects[row] == threshold[row]).nonzero().squeeze(1)
        columns[row] = torch.cat([above, equal])[:k]
    columns = columns.sort(dim=1).values
    values, order = effects.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _frame(
    direction: str,
    features: Tensor,
    effects: list[Tensor],
    tokens: list[Tensor],
    token_strings: list[str],
    k: int,
) -> pl.DataFrame:
    n = len(features)
    token_id = torch.cat(tokens).reshape(-1).numpy() if n else np.zeros(0, dtype=np.int64)
    effect = torch.cat(effects).reshape(-1).numpy() if n else np.zeros(0)
    return pl.DataFrame(
        {
            "feature": np.repeat(features.int().numpy(), k),
            "extreme": pl.Series([direction], dtype=pl.String).new_from_index(0, n * k),
            "rank": np.tile(np.arange(k, dtype=np.int32), n),
            "token_id": token_id.astype(np.int32),
            "token": token_texts(token_strings, token_id),
            "logit_effect": effect,
        }
    )
