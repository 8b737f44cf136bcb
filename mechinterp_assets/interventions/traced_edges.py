"""Where traced edges are edited, along which directions, and the steps that edit them.

Belongs here: positions and bases of edges in a group of prompts, controls' slices, edge steps. Does
not belong here: what an edit of an edge is (kinds/edge.py), the choice of edges (edge_choice.py).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.interventions.edge_keys import (
    EDGE_KEY,
    PAIR_KEY,
    EdgeKey,
    own_token_edges,
)
from mechinterp_assets.interventions.residual import cosine_and_norm_ratio
from mechinterp_assets.interventions.runs import (
    CleanRun,
    Edit,
    LiveRun,
    Pairs,
    Step,
    earliest,
)
from mechinterp_assets.interventions.sites import Places
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.hooks import Hook, NamedHook
from mechinterp_assets.model.language_model import LanguageModel

SITE_COLUMNS = ("prompt", *EDGE_KEY, "destination", "source", "slices")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class EdgePlaces:
    """Where one edge is edited in one group: one entry per (row, position).

    row, position [place]; basis [place, d_model, m] orthonormal columns; vectors [place,
    d_model + 1, m] the singular vectors themselves, 0 where a place has fewer; slices [place]: |S|.
    """

    members: Tensor
    row: Tensor
    position: Tensor
    basis: Tensor
    vectors: Tensor
    n_slices: Tensor
    pairs: Pairs


@dataclass(frozen=True)
class EdgeStep:
    """x -> x + strength * h at (row, position): the upstream output, or the reader's q, k, v.

    strength is alpha for boosting and -alpha for ablating.
    """

    model: LanguageModel
    upstream_layer: int
    upstream_head: int
    layer: int
    head: int
    receiver: str | None
    strength: float
    row: Tensor
    position: Tensor
    basis: Tensor

    @property
    def first_layer(self) -> int:
        return self.upstream_layer if self.receiver is None else self.layer

    @property
    def first_position(self) -> int:
        return earliest(self.position)

    @property
    def reads(self) -> tuple[tuple[str, int], ...]:
        z = ("z", self.upstream_layer)
        return (z,) if self.receiver is None else (z, ("scale", self.layer))

    def direction(self, z: Tensor, first: int = 0) -> Tensor:
        """h [place, d_model] from the upstream layer's z [row, position from `first` on, ...]."""
        own = z[self.row, self.position - first, self.upstream_head]
        o = own @ self.model.weights.W_O[self.upstream_layer, self.upstream_head]
        within = torch.einsum("pd,pdm->pm", o, self.basis)
        return torch.einsum("pm,pdm->pd", within, self.basis)

    def hooks(self, rows: slice, live: LiveRun) -> list[NamedHook]:
        row, position = self.row + rows.start, self.position - live.first

        def edit_attn_out(attn_out: Tensor, hook: Any) -> Tensor:
            h = self.direction(live.z(self.upstream_layer, rows), live.first)
            attn_out[row, position] += self.strength * h
            return attn_out

        def edit_projection(weight: Tensor, head: int) -> Hook:
            def edit(value: Tensor, hook: Any) -> Tensor:
                h = self.direction(live.z(self.upstream_layer, rows), live.first)
                scale = live.scale(self.layer, rows)[self.row, position]
                value[row, position, head] += self.strength * (h / scale) @ weight
                return value

            return edit

        if self.receiver is None:
            return [(f"blocks.{self.upstream_layer}.hook_attn_out", edit_attn_out)]
        weights = self.model.weights
        projections = {"q": weights.W_Q, "k": weights.W_K, "v": weights.W_V}
        shared = self.model.config.key_value_head(self.head)
        return [
            (
                f"blocks.{self.layer}.attn.hook_{name}",
                edit_projection(
                    projections[name][self.layer, self.head], self.head if name == "q" else shared
                ),
            )
            for name in self.receiver
        ]

    def select(self, keep: Tensor) -> "EdgeStep":
        places, kept = Places(self.row, self.position).select(keep)
        return replace(self, row=places.row, position=places.position, basis=self.basis[kept])


def edge_edit(run: CleanRun, step: EdgeStep, places: EdgePlaces) -> Edit:
    """The edit of one edge in the prompts that it is made in.

    Cosine and norm ratio are those of the residual stream at the edited position: after the
    upstream layer's attention (global), or at the downstream layer's input (local, where only one
    head sees the edit).
    """
    h = step.direction(run.z[step.upstream_layer][places.members])
    return moved_by(run, step, places, step.strength * h, step.receiver is not None)


def moved_by(run: CleanRun, step: Step, places: EdgePlaces, delta: Tensor, is_local: bool) -> Edit:
    """The edit that adds delta [place, d_model] to the residual stream, and how far it goes."""
    stream = run.resid_pre[step.first_layer] if is_local else run.resid_mid[step.first_layer]
    before = stream[places.members][places.row, places.position]
    cosine, norm_ratio = cosine_and_norm_ratio(
        before, before + delta, places.row, len(places.members)
    )
    return Edit(run, places.members, (step,), cosine, norm_ratio, places.n_slices, places.pairs)


class TracedEdges:
    """Edges of a trace, by name, with the singular vectors of the heads that read.

    trace_edges: frame trace_edges, or any frame with the columns of SITE_COLUMNS: which prompts
    an edge occurs in, at which positions, through which slices.
    """

    def __init__(self, model: LanguageModel, trace_edges: pl.DataFrame) -> None:
        if missing := [name for name in SITE_COLUMNS if name not in trace_edges.columns]:
            raise InterventionError(
                f"trace edges lack the columns {missing}; give the frame trace_edges"
            )
        heads = own_token_edges(trace_edges.filter(pl.col("upstream_head").is_not_null()))
        self.model = model
        self.omega = ModelOmega(model)
        self.rank = int(self.omega.vectors(0, 0)[1].shape[0])
        sites = heads.select(SITE_COLUMNS).unique(
            subset=("prompt", *EDGE_KEY, "destination", "source"), maintain_order=True
        )
        self._sites: dict[Key, pl.DataFrame] = dict(sites.group_by(EDGE_KEY, maintain_order=True))
        pairs = trace_edges.select("prompt", *PAIR_KEY, "destination", "source", "slices").unique(
            subset=("prompt", *PAIR_KEY, "destination", "source"), maintain_order=True
        )
        self._pairs: dict[Key, pl.DataFrame] = dict(pairs.group_by(PAIR_KEY, maintain_order=True))
        self._last: tuple[object, EdgePlaces | None] | None = None

    def occurs(self, key: EdgeKey, occurrence: str, prompts: pl.Series) -> bool:
        """Whether an edge is edited in some of the prompts of these ids."""
        sites = self._sites_of(key, occurrence)
        return sites is not None and sites["prompt"].is_in(prompts.implode()).any()

    def places(
        self, key: EdgeKey, run: CleanRun, occurrence: str, seed: int | None
    ) -> EdgePlaces | None:
        """Where an edge is edited in the prompts of a run; None where in none of them.

        seed: of a control's slices, None for the edge's own. Kept for the next call, which is often
        for the same edge.
        """
        name = (run.group.prompt, key, occurrence, seed)
        if self._last is None or self._last[0] != name:
            self._last = (name, self._work_out(key, run, occurrence, seed))
        return self._last[1]

    def _work_out(
        self, key: EdgeKey, run: CleanRun, occurrence: str, seed: int | None
    ) -> EdgePlaces | None:
        device = run.logits.device
        place_of = {prompt: row for row, prompt in enumerate(run.group.prompt)}
        known = self._sites_of(key, occurrence)
        assert known is not None  # `occurs` has seen to it
        sites = known.filter(pl.col("prompt").is_in(list(place_of)))
        slices = self._slices(key, seed, sites)
        members = sorted({place_of[p] for p, _, _, s in slices if s is not None})
        # A prompt takes part only if all of its pairs have slices (controls can run out).
        short = {place_of[p] for p, _, _, s in slices if s is None}
        members = [member for member in members if member not in short]
        if not members:
            return None
        row_of = {member: row for row, member in enumerate(members)}

        vectors: dict[tuple[int, int], list[Tensor]] = {}
        counts = torch.zeros(len(members), dtype=torch.long)
        pairs: list[tuple[int, int, int]] = []
        for prompt, destination, source, chosen in slices:
            row = row_of.get(place_of[prompt])
            if row is None or chosen is None:
                continue
            position = destination if key.side == "destination" else source
            basis = self._vectors(key, destination - source)[:, chosen]
            vectors.setdefault((row, position), []).append(basis)
            counts[row] += len(chosen)
            pairs.append((row, destination, source))
        stacked = _stacked(list(vectors.values()))
        row_index, destinations, sources = (
            torch.tensor(c).to(device) for c in zip(*pairs, strict=True)
        )
        rows, positions = (torch.tensor(c).to(device) for c in zip(*vectors, strict=True))
        return EdgePlaces(
            members=torch.tensor(members, device=device),
            row=rows,
            position=positions,
            basis=orthonormal_basis(stacked[:, :-1]).to(device, torch.float32),
            vectors=stacked.to(device, torch.float32),
            n_slices=counts,
            pairs=Pairs(
                key.downstream_layer, key.downstream_head, row_index, destinations, sources
            ),
        )

    def _sites_of(self, key: EdgeKey, occurrence: str) -> pl.DataFrame | None:
        """Rows (prompt, destination, source, slices) of an edge, None where it was not traced."""
        return self._sites.get(key) if occurrence == "kept" else self._pairs.get(key.pair)

    def _slices(
        self, key: EdgeKey, seed: int | None, sites: pl.DataFrame
    ) -> list[tuple[int, int, int, list[int] | None]]:
        """(prompt, destination, source, slices) of every pair; None where a control runs out."""
        rows = sites.select("prompt", "destination", "source", "slices").iter_rows()
        if seed is None:
            return [(p, i, j, list(s)) for p, i, j, s in rows]
        return [
            (p, i, j, control_slices(s, self.rank, seed, f"{key}|{p}|{i}|{j}"))
            for p, i, j, s in rows
        ]

    def _vectors(self, key: EdgeKey, offset: int) -> Tensor:
        """Singular vectors of the edited side [d_model + 1, rank]."""
        U, _, V = self.omega.vectors(key.downstream_layer, key.downstream_head, offset)
        return U if key.side == "destination" else V


def control_slices(slices: Sequence[int], rank: int, seed: int, label: str) -> list[int] | None:
    """As many slices as `slices`, drawn from the others of 0 .. rank - 1; None if too few are left.

    The draw depends on the seed and the label alone.
    """
    others = np.setdiff1d(np.arange(rank), np.asarray(slices))
    if len(others) < len(slices):
        return None
    generator = np.random.default_rng([seed, zlib.crc32(label.encode())])
    chosen = generator.choice(others, size=len(slices), replace=False)
    return [int(k) for k in np.sort(chosen)]


def orthonormal_basis(vectors: Tensor, tolerance: float = 1e-10) -> Tensor:
    """Orthonormal basis of the span of the columns [..., d, m], padded with zero columns.

    Zero and dependent columns add nothing. `tolerance` is relative to the largest eigenvalue of the
    Gram matrix. float64.
    """
    vectors = vectors.double()
    values, rotation = torch.linalg.eigh(vectors.mT @ vectors)
    limit = tolerance * values[..., -1:].clamp_min(1e-300)
    scale = torch.where(values > limit, values.clamp_min(1e-300).rsqrt(), 0.0)
    basis: Tensor = vectors @ (rotation * scale[..., None, :])
    return basis


# ---- private -------------------------------------------------------------------------------------


def _stacked(vectors: Sequence[Sequence[Tensor]]) -> Tensor:
    """Vectors as columns [place, d_model + 1, m], m the most of any place, padded with 0."""
    joined = [torch.cat(list(own), dim=1) for own in vectors]
    width = max(own.shape[1] for own in joined)
    return torch.stack([torch.nn.functional.pad(own, (0, width - own.shape[1])) for own in joined])
