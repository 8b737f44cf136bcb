"""The ways in which the weights of an SAE can be read, measured on activations.

Belongs here: an SAE on raw z, on z of processed weights, on z scaled to a common norm, with another
number of active features, and, as a control, on z with its heads in another order; how well each
reconstructs. Does not belong here: which of them is adopted (external.py), folders (io.py).

All measures are on raw z. The fraction of variance unexplained counts a constant error, which
explained variance does not: an SAE of processed weights on raw z has one.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.evaluation import evaluate_reconstruction

ReadingName = Literal["raw", "processed", "permuted_heads", "rescaled", "largest_k"]
# Rows of readings that are tried to be excluded; pre-activations of all are held at once.
FEW_ROWS = 2048
FEWEST_TIMES, MOST_TIMES = 16, 8  # k from a sixteenth of the declared one to eight times it


@dataclass(frozen=True)
class Reading:
    """One way to read an SAE, and what it gives on n_tokens rows.

    name: raw, processed (the offset is added to b_dec first), permuted_heads (raw or processed,
    whichever fits, of z with its heads rotated by one), rescaled (the same, of z times sqrt(d_in) /
    mean ||z||, SAELens's usual scale), largest_k (the same, of the k largest positive activations
    alone). offset_norm: of what was added to b_dec. fvu and explained_variance are None where the
    rows do not vary.
    """

    name: ReadingName
    k: int | None
    offset_norm: float
    fvu: float | None
    explained_variance: float | None
    l0: float
    n_tokens: int

    @property
    def loss(self) -> float:
        """fvu, or infinity where it is not defined."""
        return float("inf") if self.fvu is None else self.fvu


def with_offset(sae: SparseAutoencoder, offset: Tensor) -> SparseAutoencoder:
    """The SAE that reads x + offset as `sae` reads x, and gives back as much: b_dec += offset.

    offset [d_in].
    """
    moved = copy.copy(sae)
    moved.b_dec = sae.b_dec + offset.to(sae.b_dec)
    return moved


def measured(
    name: ReadingName, sae: SparseAutoencoder, rows: Tensor, offset_norm: float = 0.0
) -> Reading:
    """The reading of an SAE as it is, on rows [n, d_in]."""
    measures = evaluate_reconstruction(sae, rows)
    fvu, explained, l0 = (measures[name] for name in ("fvu", "explained_variance", "l0"))
    assert isinstance(l0, float)
    return Reading(
        name=name,
        k=None,
        offset_norm=offset_norm,
        fvu=fvu if isinstance(fvu, float) else None,
        explained_variance=explained if isinstance(explained, float) else None,
        l0=l0,
        n_tokens=len(rows),
    )


def heads_rotated(rows: Tensor, n_heads: int) -> Tensor:
    """Rows [n, n_heads * d_head] with every head's block where the next one's was."""
    return rows.view(len(rows), n_heads, -1).roll(1, 1).reshape(rows.shape)


def usual_scale(rows: Tensor) -> float:
    """sqrt(d_in) / mean ||x|| of rows [n, d_in]: SAELens's expected_average_only_in."""
    return float(rows.shape[1] ** 0.5 / rows.norm(dim=1).mean().clamp_min(1e-30))


@torch.no_grad()
def with_largest_k(sae: SparseAutoencoder, rows: Tensor, offset_norm: float = 0.0) -> list[Reading]:
    """The SAE with only the k largest positive activations of each row, for a range of rising k.

    Of a TopK SAE its positive pre-activations, the declared k among the numbers; of another what is
    active, and the last of the numbers leaves nothing out. On the first FEW_ROWS of rows [n, d_in].
    """
    rows = rows[:FEW_ROWS].to(sae.W_enc.device)
    f = sae.encode(rows) if sae.k is None else sae.pre_activations(rows).relu()
    ks = _numbers(sae.k, int((f > 0).sum(1).max()), sae.d_sae)
    if not ks:
        return []
    values, features = f.topk(ks[-1], dim=1)
    variance = float((rows - rows.mean(0)).double().square().sum())
    residual, readings, done = rows - sae.b_dec, [], 0
    for k in ks:
        residual = residual - _weighted_rows(sae.W_dec, features[:, done:k], values[:, done:k])
        done = k
        error = residual.double()
        spread = float((error - error.mean(0)).square().sum())
        readings.append(
            Reading(
                name="largest_k",
                k=k,
                offset_norm=offset_norm,
                fvu=float(error.square().sum()) / variance if variance > 0 else None,
                explained_variance=1 - spread / variance if variance > 0 else None,
                l0=float((values[:, :k] > 0).sum(1).double().mean()),
                n_tokens=len(rows),
            )
        )
    return readings


def best(readings: Sequence[Reading]) -> Reading | None:
    """The reading that leaves least, None of none."""
    return min(readings, key=lambda reading: reading.loss, default=None)


# ---- private -------------------------------------------------------------------------------------


def _numbers(k: int | None, most_active: int, d_sae: int) -> list[int]:
    """Powers of two about the declared k, and itself; without one, up to what is active at most."""
    low, high = (1, most_active) if k is None else (k / FEWEST_TIMES, min(k * MOST_TIMES, d_sae))
    numbers = {2**power for power in range(d_sae.bit_length()) if low <= 2**power <= high}
    return sorted((numbers | {most_active if k is None else k}) - {0})


def _weighted_rows(decoder: Tensor, features: Tensor, values: Tensor) -> Tensor:
    """sum_j values[n, j] decoder[features[n, j]], [n, d_in]."""
    return torch.nn.functional.embedding_bag(
        features, decoder, per_sample_weights=values, mode="sum"
    )
