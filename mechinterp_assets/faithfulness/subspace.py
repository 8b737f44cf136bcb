"""Subspace patching of a direction, beside its part that the next weights read.

Belongs here: the split of a direction into what W_out reads and what it cannot, patching along
either, directions to try. Does not belong here: whole activations patched as interventions.

A direction v of a site (z of a layer, read by W_O; an MLP's hidden layer, read by W_out) is split
as v = v_row + v_null: v_row in the span of what W reads, v_null in its null space, from the SVD of
W with a tolerance (written weights are centred, so W is rank-deficient and a QR would not see it).
Patching along a unit direction d sets x -> x + d d . (x_source - x). Along v_null nothing that is
written can change: any effect along v that is not there along v_row comes from activating a
direction that is dormant on clean runs (Makelov et al. 2024, arXiv 2311.17030). Whether that is an
illusion is contested: numbers are stored, no verdicts.

    FLDD = 1 - m(patched) / m(clean)   fractional logit difference decrease, of means over prompts
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch, logit_difference
from mechinterp_assets.faithfulness.split_model import Activations, SplitModel, Tail
from mechinterp_assets.model.precision import float64

Site = Literal["z", "mlp_hidden"]
Part = Literal["direction", "row", "null", "component"]
PARTS: tuple[Part, ...] = ("direction", "row", "null", "component")
NULL_TOLERANCE = 1e-5  # of the largest singular value: float32 weights know no more

SUBSPACE_SCHEMA: dict[str, Any] = {
    "site": pl.String,
    "layer": pl.Int32,
    "position_role": pl.String,
    "direction": pl.String,
    "feature": pl.Int32,
    "patched_part": pl.String,
    "matrix_rank": pl.Int64,
    "width": pl.Int64,
    "share_row": pl.Float64,
    "m_clean": pl.Float64,
    "m_source": pl.Float64,
    "m_patched": pl.Float64,
    "fldd": pl.Float64,
    "n_prompts": pl.Int64,
}


@dataclass(frozen=True)
class Direction:
    """A direction [width] of a site, patched at one role's position.

    name: what it is; feature: the SAE feature whose decoder row it is, else None.
    """

    site: Site
    layer: int
    position_role: str
    name: str
    vector: Tensor
    feature: int | None = None


@dataclass(frozen=True)
class Split:
    """v = row + null; rank of the weights; share_row = |row|^2 / |v|^2."""

    row: Tensor
    null: Tensor
    rank: int
    share_row: float


def row_space(weights: Tensor, tolerance: float = NULL_TOLERANCE) -> Tensor:
    """Orthonormal basis [width, rank] of what `weights` [width, d_model] read, float64.

    Singular values up to `tolerance` of the largest count as zero.
    """
    U, S, _ = torch.linalg.svd(float64(weights), full_matrices=False)
    basis: Tensor = U[:, : int(S.gt(tolerance * S[0]).sum())]
    return basis


def split_direction(vector: Tensor, basis: Tensor) -> Split:
    """Parts of `vector` [width] inside and outside of a row space `basis` [width, rank], float64.

    Raises FaithfulnessError for a zero vector or one of another width.
    """
    if vector.shape != basis.shape[:1]:
        raise FaithfulnessError(
            f"the direction has {tuple(vector.shape)} entries; the weights read {basis.shape[0]}"
        )
    v = float64(vector)
    if not bool(v.isfinite().all()) or float(v.norm()) == 0:
        raise FaithfulnessError("the direction is zero or not finite: there is nothing to patch")
    row = basis @ (basis.T @ v)
    share = float(row.square().sum() / v.square().sum())
    return Split(row, v - row, basis.shape[1], min(share, 1.0))


def site_weights(model: SplitModel, site: Site, layer: int) -> Tensor:
    """What reads a site [width, d_model]. Raises FaithfulnessError for a layer not there."""
    if not 0 <= layer < model.shape.n_layers:
        raise FaithfulnessError(
            f"layer {layer} does not exist; {model.source} has 0..{model.shape.n_layers - 1}"
        )
    if site == "z":
        return model.W_O[layer].flatten(0, 1)
    if site == "mlp_hidden":
        return model.W_out[layer]
    raise FaithfulnessError(f"site {site!r} is unknown; one of z, mlp_hidden")


def site_values(run: Activations, site: Site, layer: int) -> Tensor:
    """The site's activations [b, T, width]."""
    return run.z[layer].flatten(-2) if site == "z" else run.hidden[layer]


def feature_directions(
    layer: int, role: str, difference: Tensor, decoder: Tensor, count: int
) -> list[Direction]:
    """Decoder rows, at z, of the `count` features whose mean activation differs most.

    difference [d_sae]: mean clean less mean counterfactual activation at the role; decoder [d_sae,
    d_z]. Features that do not differ are left out.
    """
    order = difference.abs().argsort(descending=True, stable=True)[:count].tolist()
    return [
        Direction("z", layer, role, "sae_decoder", decoder[feature], feature)
        for feature in order
        if float(difference[feature]) != 0
    ]


def swapped_tokens(pairs: PromptBatch, first: Tensor, second: Tensor) -> PromptBatch:
    """Pairs whose counterfactual is the prompt with the tokens at two positions [prompt] exchanged.

    For IOI with IO and S1: the other name order, the same answer.
    """
    rows = torch.arange(len(pairs), device=pairs.clean.device)
    corrupt = pairs.clean.clone()
    corrupt[rows, first], corrupt[rows, second] = (
        pairs.clean[rows, second],
        pairs.clean[rows, first],
    )
    return replace(pairs, corrupt=corrupt)


@torch.no_grad()
def mean_difference_directions(
    model: SplitModel,
    pairs: PromptBatch,
    positions: dict[str, Tensor],
    *,
    name: str,
    groups: Tensor | None = None,
    sites: Sequence[Site] = ("z", "mlp_hidden"),
    batch_rows: int = 64,
) -> list[Direction]:
    """Difference of means at every site, layer and role.

    positions: role -> [prompt] position. groups [prompt] bool: mean over True less mean over False
    of the clean runs (for IOI the name order: ABB less BAB); without it clean less counterfactual.
    Raises FaithfulnessError where one of the groups is empty. A zero difference is left out.
    """
    if groups is not None and not (bool(groups.any()) and bool((~groups).any())):
        raise FaithfulnessError(f"direction {name!r}: all prompts are in one group; give more")
    sums: dict[tuple[str, Site, int], Tensor] = {}
    first = 0
    for batch in pairs.split(batch_rows):
        part = slice(first, first + len(batch))
        rows = torch.arange(len(batch), device=model.device)
        clean = model.run(batch.clean)
        corrupt = model.run(batch.corrupt) if groups is None else None
        for role, at in positions.items():
            for site in sites:
                for layer in range(model.shape.n_layers):
                    values = float64(site_values(clean, site, layer)[rows, at[part]])
                    if corrupt is not None:
                        other = float64(site_values(corrupt, site, layer)[rows, at[part]])
                        total = (values - other).sum(0) / len(pairs)
                    else:
                        assert groups is not None
                        inside = groups[part].to(values.device)
                        total = values[inside].sum(0) / groups.sum()
                        total = total - values[~inside].sum(0) / (~groups).sum()
                    key = (role, site, layer)
                    sums[key] = sums[key] + total if key in sums else total
        first += len(batch)
    return [
        Direction(site, layer, role, name, vector)
        for (role, site, layer), vector in sums.items()
        if float(vector.norm()) > 0
    ]


@torch.no_grad()
def subspace_patching(
    model: SplitModel,
    pairs: PromptBatch,
    positions: dict[str, Tensor],
    directions: Sequence[Direction],
    *,
    batch_rows: int = 64,
) -> pl.DataFrame:
    """Patch along every direction, its two parts, and the whole site: SUBSPACE_SCHEMA.

    Source: the counterfactual runs of `pairs`. A part without length (v_null of a direction that W
    reads wholly) changes nothing by definition and is run all the same.
    """
    rows: list[dict[str, Any]] = []
    splits = []
    bases: dict[tuple[Site, int], Tensor] = {}
    for one in directions:
        if one.position_role not in positions:
            raise FaithfulnessError(
                f"direction {one.name!r}: no positions of role {one.position_role!r} are given "
                f"(there are {sorted(positions)})"
            )
        key = (one.site, one.layer)
        if key not in bases:
            bases[key] = row_space(site_weights(model, *key))
        splits.append(split_direction(one.vector, bases[key]))
    patched = np.zeros((len(directions), len(PARTS)))
    m_clean: list[float] = []
    m_source: list[float] = []
    first = 0
    for batch in pairs.split(batch_rows):
        part = slice(first, first + len(batch))
        clean, corrupt = model.run(batch.clean), model.run(batch.corrupt)
        here = torch.arange(len(batch), device=model.device)
        for run, metric in ((clean, m_clean), (corrupt, m_source)):
            metric += logit_difference(model, batch, run.final[here, batch.end]).tolist()
        for number, (one, split) in enumerate(zip(directions, splits, strict=True)):
            at = positions[one.position_role][part].to(model.device)
            found = _patch(model, batch, clean, corrupt, one, split, at)
            patched[number] += float64(found).sum(1).cpu().numpy()
        first += len(batch)
    n = len(pairs)
    of_clean, of_source = float(np.mean(m_clean)), float(np.mean(m_source))
    for one, split, totals in zip(directions, splits, patched, strict=True):
        for part_name, total in zip(PARTS, (totals / n).tolist(), strict=True):
            rows.append(
                {
                    "site": one.site,
                    "layer": one.layer,
                    "position_role": one.position_role,
                    "direction": one.name,
                    "feature": one.feature,
                    "patched_part": part_name,
                    "matrix_rank": split.rank,
                    "width": len(one.vector),
                    "share_row": split.share_row,
                    "m_clean": of_clean,
                    "m_source": of_source,
                    "m_patched": total,
                    "fldd": 1 - total / of_clean if of_clean else None,
                    "n_prompts": n,
                }
            )
    return pl.DataFrame(rows, schema=SUBSPACE_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


def _patch(
    model: SplitModel,
    batch: PromptBatch,
    clean: Activations,
    corrupt: Activations,
    one: Direction,
    split: Split,
    at: Tensor,
) -> Tensor:
    """Logit difference [part, b] of patching the parts at positions `at` [b]."""
    rows = torch.arange(len(batch), device=model.device)
    weights = site_weights(model, one.site, one.layer)
    difference = float64(
        (site_values(corrupt, one.site, one.layer) - site_values(clean, one.site, one.layer))[
            rows, at
        ]
    )
    changes = []
    for vector in (one.vector, split.row, split.null):
        v = float64(vector).to(difference.device)
        length = v.norm()
        # A part that is rounding error has no direction: nothing is patched along it.
        if float(length) <= 1e-9 * float(float64(one.vector).norm()):
            changes.append(torch.zeros_like(difference))
        else:
            unit = v / length
            changes.append((difference @ unit)[:, None] * unit)
    changes.append(difference)
    # The change is written through the weights in float64: what lies in their null space then
    # cancels to rounding error instead of to that of float32.
    written = (torch.stack(changes) @ float64(weights)).to(model.device, model.dtype)
    n_parts = len(changes)
    tail = Tail.of(clean, at, batch.end)
    last = one.layer == model.shape.n_layers - 1
    after = clean.final if last else clean.pre[one.layer + 1]
    # Its first position comes again where the prompt has fewer: all of them are changed.
    here = (tail.at == at[:, None]).to(model.dtype)[..., None]
    stream = tail.take(clean.mid[one.layer] if one.site == "z" else after)
    stream = (stream + here * written[:, :, None]).flatten(0, 1)
    rest = tail.repeated(n_parts)
    at_end = (
        model.finish(one.layer, stream, rest)
        if one.site == "z"
        else model.finish_from(one.layer + 1, stream, rest)
    )
    return logit_difference(model, batch, at_end.view(n_parts, len(batch), -1))
