"""Rows of activations whose norm is far above the rest.

Belongs here: norms of rows, and which rows count as outliers by rank. Does not belong here: what is
done without them (the sae package), rows that a study leaves out by a limit of its own
(norm_limits.py).

A handful of rows of many times the usual norm decide every sum of squares: an input scale, an
explained variance, a loss. Statistics are therefore also taken without the largest thousandth.
"""

import math

import torch
from torch import Tensor

OUTLIER_SHARE = 0.001
# In language models the largest thousandth of ||z|| carries about 1% of the variance.
LARGE_SHARE = 0.1


def row_norms(rows: Tensor) -> Tensor:
    """||x|| of rows [..., d] -> [...] float32."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32)
    return norms


def n_outliers(n: int) -> int:
    """How many of n rows are left out: a thousandth, rounded up."""
    return math.ceil(OUTLIER_SHARE * n)


def typical_rows(rows: Tensor) -> Tensor:
    """Rows [n, d] without the thousandth of largest norm, in their order; all if fewer than 3."""
    if len(rows) < 3:
        return rows
    typical = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    typical[rows.norm(dim=1).topk(n_outliers(len(rows)), sorted=False).indices] = False
    return rows[typical]


def sum_of_squares_about_mean(rows: Tensor) -> float:
    """sum ||x - mean x||^2 of rows [n, d]."""
    return float((rows - rows.mean(0)).square().sum(dtype=torch.float64))
