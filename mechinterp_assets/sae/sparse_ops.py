"""Sums over the few active features of each row: top-k, sparse decode, and its backward.

Belongs here: the operations every sparse architecture's step is made of, as functions of tensors,
each with its plain torch path. Does not belong here: a loss or its gradient (the architectures'
files), dense GEMMs (steps.py).

Entries come in two forms. Rectangular: features [n, k] and values [n, k], k entries a row (TopK).
Ragged: rows [m], features [m] and values [m] with rows ascending, any number a row (BatchTopK).
All sums run in a fixed order, so that the same inputs give the same bits in every run.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Decoder entries gathered at a time: within the caches of a CPU, few launches on a GPU.
GATHERED_CPU, GATHERED_GPU = 2**20, 2**26


def topk_rows(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre [n, d_sae]: values [n, k] and features [n, k] int64.

    In no particular order; which of several equal values is kept at the edge is not specified.
    NaN counts as the largest value.
    """
    values, features = pre.topk(k, dim=-1, sorted=False)
    return values, features


def sparse_decode(features: Tensor, values: Tensor, decoder: Tensor) -> Tensor:
    """sum_j values[n, j] decoder[features[n, j]]: [n, d] from entries [n, k], decoder [d_sae, d]."""
    return F.embedding_bag(features, decoder, per_sample_weights=values, mode="sum")


def sparse_decode_ragged(
    rows: Tensor, features: Tensor, values: Tensor, decoder: Tensor, n: int
) -> Tensor:
    """The same from ragged entries [m], rows ascending below n: [n, d]; empty rows give 0."""
    return _bags(features, decoder, _starts(rows, n), values)


def gathered_dot(residual: Tensor, decoder: Tensor, features: Tensor) -> Tensor:
    """residual[n] . decoder[features[n, j]]: [n, k] from residual [n, d], decoder [d_sae, d]."""
    n, k = features.shape
    d = residual.shape[1]
    chunk = max(1, _gathered(residual) // max(1, k * d))
    out = torch.empty(n, k, dtype=residual.dtype, device=residual.device)
    for start in range(0, n, chunk):
        here = slice(start, start + chunk)
        directions = decoder.index_select(0, features[here].flatten()).view(-1, k, d)
        torch.bmm(directions, residual[here].unsqueeze(-1), out=out[here].unsqueeze(-1))
    return out


def gathered_dot_ragged(
    residual: Tensor, decoder: Tensor, rows: Tensor, features: Tensor
) -> Tensor:
    """residual[rows[m]] . decoder[features[m]]: [m] from ragged entries [m]."""
    chunk = max(1, _gathered(residual) // residual.shape[1])
    out = torch.empty(len(rows), dtype=residual.dtype, device=residual.device)
    for start in range(0, len(rows), chunk):
        here = slice(start, start + chunk)
        torch.linalg.vecdot(
            residual.index_select(0, rows[here]),
            decoder.index_select(0, features[here]),
            out=out[here],
        )
    return out


class EntriesByFeature:
    """The entries of a batch grouped by feature, for sums over each feature's rows.

    embedding_bag does the sparse [d_sae, n] by dense [n, d] product: on a CPU several times faster
    than a CSR matrix, and the same on every device and in every run (no atomic adds).
    """

    def __init__(self, features: Tensor, d_sae: int, rows: Tensor | None = None) -> None:
        """features [n, k]; or ragged features [m] with their rows [m]."""
        flat = features.flatten()
        self._order = torch.argsort(flat, stable=True)
        self._rows = self._order // features.shape[1] if rows is None else rows[self._order]
        counts = torch.bincount(flat, minlength=d_sae)
        self._starts = counts.cumsum(0) - counts

    def weighted_rows(self, weights: Tensor, rows: Tensor) -> Tensor:
        """sum over the entries of a feature of weights [n, k] or [m] times rows [n, d]: [d_sae, d]."""
        return _bags(self._rows, rows, self._starts, weights.flatten()[self._order])

    def sums(self, weights: Tensor) -> Tensor:
        """sum over the entries of a feature of weights [n, k] or [m]: [d_sae]."""
        ones = weights.new_ones(len(self._order), 1)
        everything = torch.arange(len(self._order), device=weights.device)
        grouped = weights.flatten()[self._order]
        return _bags(everything, ones, self._starts, grouped).squeeze(1)


# ---- private -------------------------------------------------------------------------------------


def _gathered(like: Tensor) -> int:
    return GATHERED_CPU if like.device.type == "cpu" else GATHERED_GPU


def _starts(rows: Tensor, n: int) -> Tensor:
    """Where each row's entries start [n], from rows [m] ascending."""
    counts = torch.bincount(rows, minlength=n)
    return counts.cumsum(0) - counts


def _bags(index: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of table rows, one bag for each start; no entries at all give zeros."""
    if len(index) == 0:
        return table.new_zeros(len(starts), table.shape[1])
    return F.embedding_bag(index, table, starts, per_sample_weights=weights, mode="sum")
