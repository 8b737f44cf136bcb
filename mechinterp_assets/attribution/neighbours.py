"""Features that are active together or write alike, over all pairs of one SAE.

Belongs here: co-activation (phi) and decoder cosine of every pair, and each one's nearest; exact,
with no pair and no token sampled. Pairs are visited in blocks of rows, so that memory holds
[block, d_sae] and the sparse activations, never [d_sae, d_sae].
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from mechinterp_assets.attribution.activation_stream import TokenGrid, whole_features

# float32 decides which neighbours are looked at in float64: as many more than asked for.
_SPARE = 4
_PAIRS_AT_ONCE = 1024
Nearest = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Row, column and value."""


def feature_neighbours(
    activations: Iterable[pl.DataFrame],
    tokens: TokenGrid,
    W_dec: Tensor,
    *,
    top: int = 10,
    workspace_bytes: int = 128 * 2**20,
) -> pl.DataFrame:
    """Frame `feature_neighbours` of one layer (without study and layer).

    Co-activation is the phi coefficient: Pearson's correlation of the two indicators "is active"
    over all N tokens read, (N n_ij - n_i n_j) / sqrt(n_i (N - n_i) n_j (N - n_j)). Only pairs with
    phi > 0 are listed. Of equal values the lower feature comes first. Features that never fired,
    and for the cosine those whose decoder row is 0, have no rows and are nobody's neighbours.

    Args:
        activations: frames with feature, sequence, position, sorted by feature, sequence and
            position, cut anywhere.
        tokens: the tokens that the same feature pass read.
        W_dec: [d_sae, d_in] decoder; the cosines are computed on its device.
        top: neighbours per feature and kind.
        workspace_bytes: size of one block [features, d_sae] float64.

    Raises:
        ValueError: top is below 1, the frames are not sorted, name a feature that the decoder does
            not have, or lie at a token that was not read.
    """
    if top < 1:
        raise ValueError(f"top is {top}; give at least 1")
    d_sae = len(W_dec)
    active = active_tokens(activations, d_sae, tokens.cells, tokens.read.size)
    n_active = np.diff(active.indptr).astype(np.int64)
    fired = n_active > 0
    by_token = active.T.tocsr()
    W_dec = W_dec.detach()
    norms = W_dec.double().norm(dim=1)
    writes = fired & (norms > 0).cpu().numpy()
    found = [pl.DataFrame(schema=_SCHEMA)]
    size = max(1, workspace_bytes // (8 * d_sae))
    for start in range(0, d_sae, size):
        rows = np.arange(start, min(start + size, d_sae))
        counts = torch.from_numpy((active[start : start + size] @ by_token).toarray())
        nearest = {
            "coactivation": positive(
                _others(phi(counts, n_active[rows], n_active, tokens.n_tokens), rows), top
            ),
            "decoder_cosine": _cosines(W_dec, norms, rows, writes, top),
        }
        for kind, (row, neighbour, value) in nearest.items():
            found.append(_frame(kind, rows, row, neighbour, value, counts))
    return pl.concat(found).sort("feature", "measure", "rank")


def active_tokens(
    activations: Iterable[pl.DataFrame],
    d_sae: int,
    cells: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.int64]],
    n_cells: int | None = None,
) -> csr_matrix:
    """[d_sae, cell] 1 where the feature is active, int32.

    Args:
        activations: frames with feature, sequence, position, sorted by feature, cut anywhere.
        d_sae: features of the SAE.
        cells: numbers of tokens by sequence and position.
        n_cells: how many there are; None: up to the last with an active feature.
    """
    parts: list[NDArray[Any]] = []
    n_active = np.zeros(d_sae, dtype=np.int64)
    for frame in whole_features(activations):
        feature = frame["feature"].to_numpy()
        if feature[-1] >= d_sae:
            raise ValueError(
                f"feature {feature[-1]} is active, but the decoder has {d_sae} features; give the "
                "SAE of the same feature pass"
            )
        n_active += np.bincount(feature, minlength=d_sae)
        at = cells(frame["sequence"].to_numpy(), frame["position"].to_numpy())
        parts.append(at.astype(np.int32) if at.max(initial=0) < 2**31 - 1 else at)
    columns = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    starts = np.concatenate([[0], n_active.cumsum()])
    ones = np.ones(len(columns), dtype=np.int32)
    width = int(columns.max(initial=-1)) + 1 if n_cells is None else n_cells
    return csr_matrix((ones, columns, starts), shape=(d_sae, width))


def phi(
    counts: Tensor, n_rows: NDArray[np.int64], n_columns: NDArray[np.int64], n_tokens: int
) -> Tensor:
    """[row, column] float64 phi of every pair of features; 0 with one never or always active.

    Args:
        counts: [row, column] tokens at which both are active.
        n_rows, n_columns: tokens at which each feature is active.
        n_tokens: tokens read.
    """
    one, other = torch.from_numpy(n_rows).double(), torch.from_numpy(n_columns).double()
    spreads = []
    for active in (one, other):
        spread = (active * (n_tokens - active)).sqrt()
        spread[spread == 0] = torch.inf  # no correlation
        spreads.append(spread)
    # Whole numbers below 2^53: exact.
    values = counts.double().addr_(one, other, beta=n_tokens, alpha=-1)
    return values.div_(spreads[1]).div_(spreads[0][:, None])


def positive(values: Tensor, top: int) -> Nearest:
    """The `top` largest positive entries of each row: row, column and value, by row and rank."""
    least = values.topk(min(top, values.shape[1]), dim=1).values[:, -1:]
    least = least.clamp(min=torch.finfo(values.dtype).tiny)
    row, column = (values >= least).nonzero(as_tuple=True)
    found = row.numpy(), column.numpy(), values[row, column].numpy()
    order = ranked(*found, top)
    return found[0][order], found[1][order], found[2][order]


def ranked(
    row: NDArray[np.int64], column: NDArray[np.int64], value: NDArray[np.float64], top: int
) -> NDArray[np.int64]:
    """Where the `top` largest of each row are, in order; of equals the lower columns first."""
    order: NDArray[np.int64] = np.lexsort((column, -value, row))
    return order[rank_in_rows(row[order]) < top]


def rank_in_rows(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] place of each entry among its neighbours of the same row, from 0."""
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    rank: NDArray[np.int64] = np.arange(len(row)) - np.repeat(
        starts, np.diff(starts, append=len(row))
    )
    return rank


# ---- private -------------------------------------------------------------------------------------

_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32,
        "measure": pl.String,
        "rank": pl.Int32,
        "neighbour": pl.Int32,
        "similarity": pl.Float64,
        "n_coactive": pl.Int64,
    }
)


def _others(values: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Values [row, feature] without that of each row with itself."""
    values[torch.arange(len(rows)), rows] = -torch.inf
    return values


def _cosines(
    W_dec: Tensor, norms: Tensor, rows: NDArray[np.int64], writes: NDArray[np.bool_], top: int
) -> Nearest:
    """Largest cosines of each row's decoder direction, exact to float64."""
    own = torch.from_numpy(rows).to(W_dec.device)
    silent = torch.from_numpy(~writes).to(W_dec.device)
    scale = norms.float().clamp(min=torch.finfo(torch.float32).tiny)
    cosine = (W_dec[own] @ W_dec.T).div_(scale).div_(scale[own, None])
    cosine[:, silent] = -torch.inf
    cosine[silent[own]] = -torch.inf
    cosine[torch.arange(len(own)), own] = -torch.inf
    near = cosine.topk(min(top + _SPARE, len(W_dec)), dim=1)
    row, place = (near.values > -torch.inf).nonzero(as_tuple=True)
    column = near.indices[row, place]
    value = torch.empty(len(row), dtype=torch.float64, device=row.device)
    for start in range(0, len(row), _PAIRS_AT_ONCE):
        here = slice(start, start + _PAIRS_AT_ONCE)
        one, other = W_dec[own[row[here]]].double(), W_dec[column[here]].double()
        torch.linalg.vecdot(one, other, out=value[here])
    value /= norms[own[row]] * norms[column]
    found = row.cpu().numpy(), column.cpu().numpy(), value.cpu().numpy()
    order = ranked(*found, top)
    return found[0][order], found[1][order], found[2][order]


def _frame(
    kind: str,
    rows: NDArray[np.int64],
    row: NDArray[np.int64],
    neighbour: NDArray[np.int64],
    value: NDArray[np.float64],
    counts: Tensor,
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "feature": rows[row],
            "measure": np.full(len(row), kind),
            "rank": rank_in_rows(row),
            "neighbour": neighbour,
            "similarity": value,
            "n_coactive": counts.numpy()[row, neighbour],
        },
        schema_overrides={"measure": pl.String},
    ).cast(_SCHEMA)
