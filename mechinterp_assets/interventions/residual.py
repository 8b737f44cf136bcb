"""How much an edit moves the residual stream.

Belongs here: cosine and norm ratio of a residual with and without an edit. Does not belong here:
making edits.
"""

import torch
from torch import Tensor

from mechinterp_assets.model.precision import float64


def cosine_and_norm_ratio(
    before: Tensor, after: Tensor, row: Tensor, n_rows: int
) -> tuple[Tensor, Tensor]:
    """Mean over each row's edited positions of cos(before, after) and |after| / |before|.

    before, after [edited position, d_model]; row [edited position]; returns two [n_rows] float64.
    A row without edited positions gets NaN.
    """
    before, after = float64(before), float64(after)
    row = row.to(before.device)
    size = before.norm(dim=-1).clamp_min(1e-30)
    cosine = (before * after).sum(dim=-1) / (size * after.norm(dim=-1).clamp_min(1e-30))
    values = torch.stack([cosine, after.norm(dim=-1) / size], dim=-1)
    total = values.new_zeros(n_rows, 2).index_add_(0, row, values)
    mean = total / torch.bincount(row, minlength=n_rows)[:, None]
    return mean[:, 0], mean[:, 1]
