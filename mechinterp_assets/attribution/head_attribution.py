"""Which heads a feature writes with, by decoder weights. Nothing here needs activations."""

import numpy as np
import polars as pl
import torch
from torch import Tensor


def head_attribution(W_dec: Tensor, n_heads: int) -> Tensor:
    """Share of each head in the norm of a decoder row [feature, head] (K24 eq. 2).

    h_ik = ||d_ik|| / sum_j ||d_ij||, d_ik the slice of row i for head k of a head-major z_cat.
    L2 norms, not their squares. Rows sum to 1; a zero row gives NaN. Float64.

    Args:
        W_dec: [feature, n_heads * d_head].
        n_heads: heads of the layer.

    Raises:
        ValueError: the width of W_dec is not a multiple of n_heads.
    """
    norms: Tensor = torch.linalg.vector_norm(split_heads(W_dec, n_heads).double(), dim=-1)
    return norms / norms.sum(dim=-1, keepdim=True)


def split_heads(rows: Tensor, n_heads: int) -> Tensor:
    """Vectors in z_cat space [n, n_heads * d_head] as [n, head, d_head] (head-major)."""
    if rows.shape[-1] % n_heads:
        raise ValueError(
            f"vectors of width {rows.shape[-1]} cannot be split into {n_heads} heads; "
            "pass weights of an SAE on z_cat and the model's n_heads"
        )
    return rows.reshape(*rows.shape[:-1], n_heads, rows.shape[-1] // n_heads)


def feature_head_attribution(W_dec: Tensor, n_heads: int) -> pl.DataFrame:
    """Frame `feature_head_attribution` of one layer (without study and layer); see above."""
    with torch.no_grad():
        attribution = head_attribution(W_dec, n_heads).cpu().numpy()
    n_features = len(attribution)
    return pl.DataFrame(
        {
            "feature": np.repeat(np.arange(n_features, dtype=np.int32), n_heads),
            "head": np.tile(np.arange(n_heads, dtype=np.int32), n_features),
            "attribution": pl.Series(attribution.reshape(-1)).fill_nan(None),
        }
    )
