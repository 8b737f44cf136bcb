"""Features of different layers that are active at the same tokens, over all pairs of two SAEs.

Belongs here: co-activation (phi) of every pair and each feature's nearest in every other layer;
exact, with no pair and no token sampled. Does not belong here: neighbours within one SAE
(neighbours.py).

Memory holds the sparse activations of two layers (of more where they are small) and
[block, d_sae], never [d_sae, d_sae].
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mechinterp_assets.attribution.neighbours import (
    Nearest,
    active_tokens,
    phi,
    positive,
    rank_in_rows,
    ranked,
)

COACTIVATION_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32,
        "feature": pl.Int32,
        "other_layer": pl.Int32,
        "rank": pl.Int32,
        "other_feature": pl.Int32,
        "phi": pl.Float64,
        "n_coactive": pl.Int64,
    }
)


def feature_coactivation(
    layers: Sequence[int],
    activations: Callable[[int], Iterable[pl.DataFrame]],
    d_sae: Mapping[int, int],
    n_tokens: int,
    length: int,
    *,
    top: int = 5,
    reach: int | None = None,
    workspace_bytes: int = 128 * 2**20,
    held_bytes: int = 256 * 2**20,
) -> pl.DataFrame:
    """Frame `feature_coactivation` of one study (without study).

    For every feature and other layer within `reach`, the features there with the largest phi > 0
    (Pearson's correlation of the indicators "is active" over all tokens read); of equal values the
    lower feature comes first.

    Args:
        layers: with an SAE, ascending.
        activations: of a layer: frames with feature, sequence, position, sorted by feature, cut
            anywhere. Read anew for other layers where `held_bytes` does not hold all.
        d_sae: features of each layer's SAE.
        n_tokens: tokens read, the same in all layers.
        length: positions of a sequence.
        top: features per feature and other layer.
        reach: layers with an SAE on either side that are looked at; None: all.
        workspace_bytes: size of one block [features, d_sae] float64.
        held_bytes: sparse activations that are held beside those of the two layers at hand.

    Raises:
        ValueError: top is below 1, or frames are not sorted.
    """
    if top < 1:
        raise ValueError(f"top is {top}; give at least 1")
    far = len(layers) if reach is None else reach
    found = [pl.DataFrame(schema=COACTIVATION_SCHEMA)]
    held: dict[int, csr_matrix] = {}

    def active(layer: int, beside: int) -> csr_matrix:
        """[d_sae, token] of a layer; those read before are held as long as they are small."""
        if layer not in held:
            for other in [one for one in held if one != beside]:
                if sum(_bytes(one) for one in held.values()) > held_bytes:
                    del held[other]
            held[layer] = active_tokens(
                activations(layer),
                d_sae[layer],
                lambda sequence, position: sequence.astype(np.int64) * length + position,
            )
        return held[layer]

    for (i, layer), (j, other) in combinations(enumerate(layers), 2):
        if j - i > far:
            continue
        own, theirs = active(layer, other), active(other, layer)
        width = max(own.shape[1], theirs.shape[1])
        own, theirs = (
            csr_matrix((one.data, one.indices, one.indptr), shape=(one.shape[0], width))
            for one in (own, theirs)
        )
        found += _of_pair((layer, own), (other, theirs), n_tokens, top, workspace_bytes)
    return pl.concat(found).sort("layer", "feature", "other_layer", "rank")


# ---- private -------------------------------------------------------------------------------------


def _of_pair(
    here: tuple[int, csr_matrix],
    there: tuple[int, csr_matrix],
    n_tokens: int,
    top: int,
    workspace_bytes: int,
) -> list[pl.DataFrame]:
    """Rows of both directions of a pair of layers."""
    (layer, own), (other, theirs) = here, there
    n_own, n_theirs = (np.diff(one.indptr).astype(np.int64) for one in (own, theirs))
    by_token = theirs.T.tocsr()
    size = max(1, workspace_bytes // (8 * max(1, theirs.shape[0])))
    forward: list[tuple[Nearest, NDArray[np.int64]]] = []
    backward: list[tuple[Nearest, NDArray[np.int64]]] = []
    for start in range(0, own.shape[0], size):
        counts = torch.from_numpy((own[start : start + size] @ by_token).toarray())
        values = phi(counts, n_own[start : start + size], n_theirs, n_tokens)
        for way, matrix, both in (
            (forward, values, counts),
            (backward, values.T.contiguous(), counts.T),
        ):
            row, column, value = positive(matrix, top)
            n_both = both.numpy()[row, column].astype(np.int64)
            shift = (row + start, column) if way is forward else (row, column + start)
            way.append(((*shift, value), n_both))
    return [
        _frame(layer, other, forward, top),
        _frame(other, layer, backward, top),
    ]


def _frame(
    layer: int, other: int, blocks: list[tuple[Nearest, NDArray[np.int64]]], top: int
) -> pl.DataFrame:
    """The `top` of every feature over all blocks."""
    row, column, value = (np.concatenate([block[0][i] for block in blocks]) for i in range(3))
    n_both = np.concatenate([block[1] for block in blocks])
    order = ranked(row, column, value, top)
    row = row[order]
    return pl.DataFrame(
        {
            "layer": np.full(len(row), layer),
            "feature": row,
            "other_layer": np.full(len(row), other),
            "rank": rank_in_rows(row),
            "other_feature": column[order],
            "phi": value[order],
            "n_coactive": n_both[order],
        }
    ).cast(COACTIVATION_SCHEMA)


def _bytes(active: csr_matrix) -> int:
    return int(active.data.nbytes + active.indices.nbytes + active.indptr.nbytes)
