"""Attention scores as sums over singular vectors (slices) of Omega, and the slices that matter.

Belongs here: slice terms, the selection S, signs and reading vectors of (destination, source)
pairs, the firing rule, table attention_slices for all heads. Does not belong here: following pairs
upstream (trace.py).

For head (l, a), destination i and source j, x~ = [x / s; 1]:
  c_k = sigma_k (u_k . x~_i)(v_k . x~_j),  sum_k c_k = q_i . k_j (before division by sqrt(d_head))
  S   = what is left after dropping terms in ascending order while their running sum is <= 0, that
        is the smallest set, largest terms first, that reaches the sum; for a negative sum mirrored
  e_k = sign(u_k . x~_i), applied to u_k and v_k: removes the sign gauge of the SVD
With rotary positions u_k is that of offset 0, and sigma_k v_k turns with the offset (omega.py), so
that k means the same at all offsets.
Source: Franco & Crovella 2024 (arXiv 2410.00340), sections 3 and 4, equation 8, Figures 1a and 8.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.circuits.columns import PAIR, PAIR_ROLES
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.residual import (
    ResidualStream,
    attention_scales,
    prompt_bytes,
    residual_stream,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import equal_length_groups
from mechinterp_assets.prompts.roles import position_roles

SELECTION_TOLERANCE = 1e-12
IDENTITY_LIMIT = 1e-2
SIDES = ("destination", "source")


def slice_terms(U: Tensor, S: Tensor, V: Tensor, x_destination: Tensor, x_source: Tensor) -> Tensor:
    """c_k of one head for pairs of normalised inputs [pair, d_model] -> [pair, k], float64.

    U, V [d_model + 1, k], S [k].
    """
    a = x_destination.double() @ U[:-1].double() + U[-1].double()
    b = x_source.double() @ V[:-1].double() + V[-1].double()
    return S.double() * a * b


def select_slices(terms: Tensor, tolerance: float = SELECTION_TOLERANCE) -> Tensor:
    """Mask of S [..., k]: drop terms in ascending order while their running sum stays <= 0.

    What is dropped is the largest set of terms whose sum is not positive, so that S is the smallest
    set, largest terms first, that reaches the whole sum. For a negative sum all signs are turned
    first. S is empty exactly when the sum is 0. `tolerance` is relative to the sum of absolute
    terms.
    """
    terms = terms.double()
    terms = terms * torch.where(terms.sum(-1, keepdim=True) < 0, -1.0, 1.0)
    ordered, order = terms.sort(dim=-1, stable=True)
    limit = tolerance * terms.abs().sum(-1, keepdim=True)
    # Ascending terms: the running sum falls, then rises, so "<= limit" is a prefix.
    kept = ordered.cumsum(-1) > limit
    return torch.zeros_like(kept).scatter(-1, order, kept)


def firing_pairs(
    pattern: Tensor, score: Tensor, threshold: float = 0.5, *, any_score: bool = False
) -> Tensor:
    """Mask [..., destination, source] of attention >= threshold, score >= 0 and source >= 1.

    any_score: whatever the score is (ACC, ACC++; FC24 asks for score >= 0).
    """
    fires = (pattern >= threshold) & (score >= 0) if not any_score else pattern >= threshold
    fires[..., 0] = False
    return fires


@dataclass(frozen=True)
class PairSlices:
    """Slices of pairs of one head, float64 (reading: the dtype asked for).

    terms, selected [pair, k]; coefficients [pair, side, kind, k], of the coordinates u_k . x~ and
    v_k . x~; reading [pair, side, kind, d_model] and constant [pair, side, kind]: a writer's output
    o at the side's position contributes reading . o / s, the appended 1 contributes `constant`.
    With LayerNorm the reading vectors are centred, so that o need not be. Sides: destination,
    source. Kinds: equation 8 (e_k sqrt(sigma_k) u_k), exact (sigma_k (v_k . x~_j) u_k, or with u
    and v exchanged for the source side), whose sum over all writers is the sum of the selected
    terms, and where asked for equation 8 over all slices instead of S. whole [pair, side, kind]:
    those sums.
    """

    terms: Tensor
    selected: Tensor
    coefficients: Tensor
    reading: Tensor
    constant: Tensor
    whole: Tensor


def pair_slices(
    omega: ModelOmega,
    layer: int,
    head: int,
    x_destination: Tensor,
    x_source: Tensor,
    offset: Tensor,
    n_offsets: int,
    *,
    reading_dtype: torch.dtype | None = torch.float64,
    every_slice: bool = False,
    contrast: bool = False,
    other_keys: Tensor | None = None,
) -> PairSlices:
    """Slices of one head for pairs with normalised inputs [pair, d_model] (no appended 1).

    offset [pair] = destination - source, below `n_offsets`; it matters for rotary models alone.
    `reading_dtype` is that of the writers' outputs; None leaves reading, constant and whole empty.
    every_slice: S is all slices. contrast: a third kind, equation 8 over all slices.
    other_keys: mean over the destination's other sources [pair, k] (mean_other_keys): S,
    coefficients and whole are then those of the score minus the mean of their scores; terms stay
    those of the source alone, and reading and constant are of the source's own token.
    """
    factors = omega.factors(layer)
    u, S, v = (tensor[:, head] for tensor in omega.inner(layer, n_offsets))
    Q_query, Q_key = factors.Q_query[head], factors.Q_key[head]

    def inward(x: Tensor, Q: Tensor, rotation: Tensor) -> Tensor:
        y = x.double() @ Q[:-1] + Q[-1]
        return (y[:, None] @ rotation[offset])[:, 0] if omega.rotary else y @ rotation[0]

    a, b = inward(x_destination, Q_query, u), inward(x_source, Q_key, v)
    sigma = S[offset] if omega.rotary else S[:1]
    terms = sigma * a * b
    if other_keys is not None:
        b = b - other_keys / sigma.clamp(min=torch.finfo(torch.float64).tiny)
    chosen = sigma * a * b
    selected = torch.ones_like(terms, dtype=torch.bool) if every_slice else select_slices(chosen)
    if reading_dtype is None:
        none = terms.new_zeros(0)
        return PairSlices(terms, selected, none, none, none, none)

    every = torch.where(a < 0, -1.0, 1.0) * sigma.sqrt()
    weight, more = every * selected, [every] if contrast else []
    coefficients = torch.stack(
        [
            torch.stack([weight, sigma * b * selected, *more], 1),
            torch.stack([weight, sigma * a * selected, *more], 1),
        ],
        1,
    )
    whole = (coefficients * torch.stack([a, b], 1)[:, :, None]).sum(-1)

    reading = terms.new_empty(len(terms), 2, 2 + contrast, len(Q_query) - 1, dtype=reading_dtype)
    constant = torch.empty_like(whole)
    for side, (Q, rotation) in enumerate(((Q_query, u), (Q_key, v))):
        y = coefficients[:, side] @ (rotation[offset] if omega.rotary else rotation[0]).mT
        constant[:, side] = y @ Q[-1]
        rows = Q[:-1] - Q[:-1].mean(0) if omega.centred else Q[:-1]
        reading[:, side] = y.to(reading_dtype) @ rows.to(reading_dtype).T
    return PairSlices(terms, selected, coefficients, reading, constant, whole)


def mean_other_keys(
    omega: ModelOmega, layer: int, head: int, x: Tensor, prompt: Tensor, i: Tensor, j: Tensor
) -> Tensor:
    """sigma_k v_k . x~_p of one head, mean over the sources p of 0 .. i without j [pair, k].

    Float64. x [prompt, position, d_model]: normalised inputs. prompt, i, j [pair]: rows of x,
    destinations and sources. With rotary positions sigma_k and v_k are those of each source's
    offset i - p.
    """
    length = x.shape[1]
    _, S, v = (part[:, head] for part in omega.inner(layer, length))
    v = v * S[:, None]
    y = x.double() @ omega.factors(layer).Q_key[head][:-1] + omega.factors(layer).Q_key[head][-1]
    if omega.rotary:
        total = torch.zeros_like(y)
        for offset in range(length):
            total[:, offset:] += y[:, : length - offset] @ v[offset]
        own = (y[prompt, j][:, None] @ v[i - j])[:, 0]
    else:
        keys = y @ v[0]
        total, own = keys.cumsum(1), keys[prompt, j]
    return (total[prompt, i] - own) / i.clamp(min=1)[:, None]


# ---- table attention_slices ----------------------------------------------------------------------

SLICES_SCHEMA: dict[str, pl.DataType] = {
    **PAIR,
    **PAIR_ROLES,
    "attention_score": pl.Float64(),
    "attention": pl.Float64(),
    "fires": pl.Boolean(),
    "slices": pl.List(pl.Int32()),
    "n_slices": pl.Int32(),
    "slice_sum": pl.Float64(),
    "slice_terms": pl.List(pl.Float32()),
    "relative_identity_error": pl.Float64(),
    "trace_rule": pl.String(),
    "is_root": pl.Boolean(),
    "path_multiplicity": pl.Float64(),
    "destination_heads": pl.Float64(),
    "destination_writers": pl.Float64(),
    "destination_whole": pl.Float64(),
    "destination_head_share": pl.Float64(),
    "destination_kept": pl.Int32(),
    "source_heads": pl.Float64(),
    "source_writers": pl.Float64(),
    "source_whole": pl.Float64(),
    "source_head_share": pl.Float64(),
    "source_kept": pl.Int32(),
}


class RoleNames:
    """Role of (row of a prompts frame, position) for many pairs at once."""

    def __init__(self, prompts: pl.DataFrame, *, after_bos: bool) -> None:
        roles = position_roles(prompts, after_bos=after_bos)
        self._names = pl.Series([role for row in roles for role in row], dtype=pl.String())
        self._start = np.cumsum([0, *(len(row) for row in roles[:-1])])

    def __call__(self, row: np.ndarray, position: np.ndarray) -> pl.Series:
        return self._names.gather(self._start[row] + position)


def mask_lists(mask: np.ndarray) -> pl.Series:
    """Lists of the indices at which each row of `mask` [row, k] is True."""
    offsets = np.concatenate([[0], mask.sum(1).cumsum()]).astype(np.int64)
    values = np.nonzero(mask)[1].astype(np.int32)
    return pl.Series(pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)))


@dataclass(frozen=True)
class PairBlock:
    """Pairs of one layer of one group of prompts, as arrays over pairs.

    row: row of the prompts frame. terms, selected [pair, k]. totals [pair, side, 4]: sums of the
    contributions of all heads, of all writers, the whole with the appended 1 (equation 8), and the
    heads' share in all absolute contributions; kept [pair, side]: number of kept heads. NaN and -1
    where a pair was not traced.
    """

    row: np.ndarray
    layer: int
    head: np.ndarray
    destination: np.ndarray
    source: np.ndarray
    score: np.ndarray
    attention: np.ndarray
    fires: np.ndarray
    terms: np.ndarray
    selected: np.ndarray
    is_root: np.ndarray
    path_multiplicity: np.ndarray
    totals: np.ndarray
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


def slices_frame(
    prompts: pl.DataFrame,
    blocks: Sequence[PairBlock],
    roles: RoleNames,
    scales: Sequence[float],
    trace_rule: str = "fc24",
) -> pl.DataFrame:
    """Table attention_slices from blocks; `scales` [layer] is what the model multiplies q . k by.

    Raises CircuitError when slices do not sum to the model's own scores.
    """
    blocks = [block for block in blocks if len(block)]
    if not blocks:
        return pl.DataFrame(schema=SLICES_SCHEMA)

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(block, name) for block in blocks])

    row, destination, source = joined("row"), joined("destination"), joined("source")
    terms, selected, score = joined("terms"), joined("selected"), joined("score")
    totals, kept, multiplicity = joined("totals"), joined("kept"), joined("path_multiplicity")
    size = np.maximum(np.abs(terms).sum(1), np.finfo(float).tiny)
    layers = np.concatenate([np.full(len(block), block.layer) for block in blocks])
    identity_error = np.abs(terms.sum(1) - score / np.asarray(scales)[layers]) / size
    if not identity_error.max() <= IDENTITY_LIMIT:
        raise CircuitError(
            f"slices miss the model's attention scores by up to {identity_error.max():.2g} of the "
            "sum of absolute terms; its attention is not x Omega x^T (position scheme, norm or "
            "score scaling that circuits/omega.py does not cover)"
        )
    traced = kept >= 0
    columns: dict[str, object] = {
        "prompt": prompts["prompt"].gather(row),
        "layer": layers,
        "head": joined("head"),
        "destination": destination,
        "source": source,
        "destination_role": roles(row, destination),
        "source_role": roles(row, source),
        "attention_score": score,
        "attention": joined("attention"),
        "fires": joined("fires"),
        "slices": mask_lists(selected),
        "n_slices": selected.sum(1),
        "slice_sum": (terms * selected).sum(1),
        "slice_terms": pl.Series(terms.astype(np.float32)).arr.to_list(),
        "relative_identity_error": identity_error,
        "trace_rule": [trace_rule] * len(row),
        "is_root": joined("is_root"),
        "path_multiplicity": pl.Series(multiplicity).fill_nan(None),
    }
    for at, side in enumerate(SIDES):
        heads, writers, whole, share = (
            pl.Series(totals[:, at, i]).fill_nan(None) for i in range(4)
        )
        columns[f"{side}_heads"] = heads
        columns[f"{side}_writers"] = writers
        columns[f"{side}_whole"] = whole
        columns[f"{side}_head_share"] = share
        columns[f"{side}_kept"] = pl.DataFrame({"kept": kept[:, at], "ok": traced[:, at]}).select(
            pl.when("ok").then("kept")
        )["kept"]
    return pl.DataFrame(columns).cast(pl.Schema(SLICES_SCHEMA))


def prompts_per_batch(model: LanguageModel, n_layers: int, memory_mib: int) -> Callable[[int], int]:
    """By n_tokens: prompts whose residual streams fit into `memory_mib`, at least 1."""
    return lambda length: max(1, (memory_mib << 20) // prompt_bytes(model, length, n_layers))


@torch.no_grad()
def attention_slices(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    threshold: float = 0.5,
    memory_mib: int = 512,
    omega: ModelOmega | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Table attention_slices for the firing pairs of all heads and prompts (processed weights).

    Nothing is traced: is_root is False, path_multiplicity and the columns of the two sides are
    NULL. Rows are ordered by prompt length, layer and head. Raises PromptError and CircuitError.
    """
    check_prompts_fit(prompts, model)
    omega = omega or ModelOmega(model)
    roles, blocks, done = RoleNames(prompts, after_bos=model.bos.prepended), [], 0
    n_layers = model.config.n_layers
    indexed = prompts.with_row_index("_row")
    batch = prompts_per_batch(model, n_layers, memory_mib)
    for group, ids in equal_length_groups(indexed, batch):
        stream = residual_stream(model, ids, n_layers, device=omega.device)
        rows = group["_row"].to_numpy()
        for layer in range(n_layers):
            fires = firing_pairs(stream.pattern[layer], stream.score[layer], threshold)
            blocks.append(_untraced_block(omega, stream, layer, fires, rows))
        done += group.height
        if progress is not None:
            progress(done, prompts.height)
    return slices_frame(prompts, blocks, roles, attention_scales(model))


def _untraced_block(
    omega: ModelOmega, stream: ResidualStream, layer: int, fires: Tensor, rows: np.ndarray
) -> PairBlock:
    head, prompt, i, j = fires.transpose(0, 1).nonzero(as_tuple=True)
    x = stream.normalised(layer)
    rank = omega.inner(layer, x.shape[1])[1].shape[-1]
    terms = x.new_zeros(len(head), rank)
    selected = torch.zeros(len(head), rank, dtype=torch.bool, device=x.device)
    for at in sorted(set(head.tolist())):
        of = (head == at).nonzero()[:, 0]
        b, d, s = prompt[of], i[of], j[of]
        pairs = pair_slices(
            omega, layer, at, x[b, d], x[b, s], d - s, x.shape[1], reading_dtype=None
        )
        terms[of], selected[of] = pairs.terms, pairs.selected
    n = len(head)
    return PairBlock(
        row=rows[prompt.cpu().numpy()],
        layer=layer,
        head=head.cpu().numpy(),
        destination=i.cpu().numpy(),
        source=j.cpu().numpy(),
        score=stream.score[layer][prompt, head, i, j].double().cpu().numpy(),
        attention=stream.pattern[layer][prompt, head, i, j].double().cpu().numpy(),
        fires=np.ones(n, dtype=bool),
        terms=terms.cpu().numpy(),
        selected=selected.cpu().numpy(),
        is_root=np.zeros(n, dtype=bool),
        path_multiplicity=np.full(n, np.nan),
        totals=np.full((n, 2, 4), np.nan),
        kept=np.full((n, 2), -1),
    )
