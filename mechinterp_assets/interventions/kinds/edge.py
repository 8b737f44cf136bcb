"""Ablating and boosting traced edges (FC24 section 5).

Belongs here: kind edge, the choice of edges from a trace and their random controls. Does not belong
here: tracing (circuits/trace.py) and running (runner.py).

An edge says that head U of an earlier layer writes, at the destination (or source) position of a
pair that head D attends over, into the slices S of D's Omega. With o = z W_O of U at that position
(no bias) the edit's direction is
    h = P o,   P = the orthogonal projector onto span{u_k[:d_model] : k in S}   (source side: v_k).
u_k has d_model + 1 coordinates; the last one reads the appended 1, which no head writes, so it is
left out. The truncated vectors are not orthonormal any more. FC24 uses U_S U_S^T as it is; here
they are orthonormalised first, so that ablating takes out exactly what o contributes along the
slices: u_k . (o - h) = 0 for every k in S. The two agree where the biases b_Q, b_K are small.

Global: U's attention output at that position -+ alpha h; every later reader sees it, through its
own LayerNorm. Local: D's normalised input there -+ alpha h / s, s being the scale of D's norm; q
alone on the destination side, k alone on the source side, or "qkv": all three, as in FC24's code.
Control: as many slices, drawn without replacement and with a seed from the complement of S, in the
place of S. Prompts whose S covers more than half of the slices have no control of equal size and
are left out of it.
Occurrence: an edge is kept in some of the prompts in which D's pair was traced. "kept" edits it in
those; "traced" in every prompt in which D's pair was traced, through that pair's S, as FC24's code
does, so that all edges into one pair are compared on the same prompts.
"""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from pydantic import model_validator
from torch import Tensor

from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.interventions.residual import cosine_and_norm_ratio
from mechinterp_assets.interventions.runner import run_interventions
from mechinterp_assets.interventions.runs import (
    CleanRun,
    Edit,
    LiveRun,
    NamedHook,
    Pairs,
    Progress,
    Runs,
)
from mechinterp_assets.interventions.spec import (
    ALL_POSITIONS,
    Index,
    Intervention,
    InterventionError,
    Scope,
    Side,
    Site,
    Weights,
    check_shared_keys,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelShape

logger = logging.getLogger(__name__)

EDGE_KEY = (
    "upstream_layer",
    "upstream_head",
    "downstream_layer",
    "downstream_head",
    "destination_role",
    "source_role",
    "side",
)
SITE_COLUMNS = ("prompt", *EDGE_KEY, "destination", "source", "slices")
Key = tuple[Any, ...]
EdgeMode = Literal["ablate", "boost"]
EdgeReceiver = Literal["q", "k", "qkv"]
Occurrence = Literal["kept", "traced"]
PAIR_KEY = ("downstream_layer", "downstream_head", "destination_role", "source_role")


class EditEdge(Intervention):
    """What head `upstream_head` of `upstream_layer` writes into the slices through which head
    `head` of `layer` reads it: ablate or boost.

    `side` says whether it is written at the destination (query) or the source (key) of the
    downstream head's pair, whose roles are `destination_role` and `source_role`.
    scope global: the upstream head's attention output is edited, every later reader sees it.
    scope local: only the downstream head's normalised input is; `receiver` says through which of
    its weights: "q" (destination side), "k" (source side) or "qkv" (the authors' variant).
    is_control: as many slices drawn at random, with `seed`, outside the edge's own.
    occurrence: edited in the prompts in which the edge was "kept", or in all in which the
    downstream head's pair was "traced" (as FC24's code does).
    """

    kind: Literal["edge"] = "edge"
    mode: EdgeMode
    head: Index
    upstream_layer: Index
    upstream_head: Index
    destination_role: str
    source_role: str
    side: Side
    scope: Scope
    receiver: EdgeReceiver | None = None
    is_control: bool = False
    seed: int | None = None
    occurrence: Occurrence = "kept"

    possible_weights: ClassVar[tuple[Weights, ...]] = ("processed",)

    @model_validator(mode="after")
    def _fields_fit(self) -> "EditEdge":
        if self.upstream_layer >= self.layer:
            raise ValueError(
                f"upstream layer {self.upstream_layer} does not lie before layer {self.layer}; "
                "an edge goes from an earlier head to a later one"
            )
        fits = {"destination": ("q", "qkv"), "source": ("k", "qkv")}[self.side]
        if self.scope == "local" and self.receiver not in fits:
            raise ValueError(f"a local edit on the {self.side} side needs receiver in {fits}")
        if self.scope == "global" and self.receiver is not None:
            raise ValueError("a global edit is seen by every reader; leave receiver out")
        if self.is_control != (self.seed is not None):
            raise ValueError("seed is given exactly for a control")
        if self.position_role not in (ALL_POSITIONS, self.edited_role):
            raise ValueError(f"the edited position of this edge is {self.edited_role}")
        return self

    @property
    def edited_role(self) -> str:
        return self.destination_role if self.side == "destination" else self.source_role

    @property
    def roles(self) -> tuple[str, ...]:
        """None: an edge is edited where it was traced."""
        return ()

    @property
    def edited_site(self) -> str:
        return "attn_out" if self.scope == "global" else f"{self.receiver}_input"

    @property
    def edge(self) -> str:
        """The edge without what is done to it: upstream head > downstream head, pair, side."""
        return (
            f"L{self.upstream_layer}H{self.upstream_head}>L{self.layer}H{self.head}"
            f":{self.destination_role}<-{self.source_role}:{self.side}"
        )

    @property
    def label(self) -> str:
        where = f"{self.scope}" + (f"-{self.receiver}" if self.receiver else "")
        control = f":control-{self.seed}" if self.is_control else ""
        prompts = ":traced" if self.occurrence == "traced" else ""
        return f"{self.mode}:{where}:{self.edge}{prompts}{control}"

    @property
    def sites(self) -> tuple[Site, ...]:
        reader = f"L{self.layer}H{self.head}" if self.scope == "local" else ""
        own = Site(
            what="the output",
            layer=self.upstream_layer,
            head=self.upstream_head,
            role=self.edited_role,
            detail=reader,
        )
        return (own,)

    def check_shape(self, shape: ModelShape) -> None:
        super().check_shape(shape)
        self.check_indices([("upstream_head", self.upstream_head, shape.n_heads)])
        if self.receiver is not None:
            check_shared_keys(self.id, self.receiver, [self.head], shape)


# ---- choosing edges ------------------------------------------------------------------------------


def heaviest_edges(trace_edges: pl.DataFrame, n_edges: int) -> pl.DataFrame:
    """The `n_edges` edges between heads with the largest sum of contributions over prompts.

    trace_edges: frame ioi_trace_edges. An edge is a row of ioi_trace_graph: upstream and downstream
    head, roles of the pair, side; only kept rows count. Returns the key columns, n_prompts and
    contribution (the sum), heaviest first.
    """
    if n_edges < 1:
        raise InterventionError(f"n_edges is {n_edges}; ask for at least 1")
    return (
        trace_edges.filter((pl.col("upstream_kind") == "head") & pl.col("kept"))
        .group_by(EDGE_KEY)
        .agg(pl.col("prompt").n_unique().alias("n_prompts"), pl.col("contribution").sum())
        .sort("contribution", *EDGE_KEY, descending=[True, *[False] * len(EDGE_KEY)])
        .head(n_edges)
    )


def edge_interventions(
    edges: pl.DataFrame,
    *,
    modes: Sequence[EdgeMode] = ("ablate", "boost"),
    scopes: Sequence[Scope] = ("local", "global"),
    n_controls: int = 1,
    seed: int = 0,
    authors_receiver: bool = False,
    occurrence: Occurrence = "kept",
) -> list[EditEdge]:
    """Every edge in every mode and scope, with its controls (seeds seed .. seed + n_controls - 1).

    edges: rows with the key columns, as `heaviest_edges` returns them. Local edits go through q
    (destination side) or k (source side); `authors_receiver` adds the variant through q, k and v.
    """
    interventions: list[EditEdge] = []
    for edge in edges.select(EDGE_KEY).iter_rows(named=True):
        own: EdgeReceiver = "q" if edge["side"] == "destination" else "k"
        local: tuple[EdgeReceiver, ...] = (own, "qkv") if authors_receiver else (own,)
        variants = [(s, r) for s in scopes for r in (local if s == "local" else (None,))]
        for control in (None, *range(seed, seed + n_controls)):
            for scope, receiver in variants:
                interventions += [
                    EditEdge(
                        mode=mode,
                        layer=edge["downstream_layer"],
                        head=edge["downstream_head"],
                        upstream_layer=edge["upstream_layer"],
                        upstream_head=edge["upstream_head"],
                        destination_role=edge["destination_role"],
                        source_role=edge["source_role"],
                        side=edge["side"],
                        scope=scope,
                        receiver=receiver,
                        is_control=control is not None,
                        seed=control,
                        occurrence=occurrence,
                    )
                    for mode in modes
                ]
    return interventions


def intervene_on_edges(
    model: LanguageModel,
    prompts: pl.DataFrame,
    trace_edges: pl.DataFrame,
    *,
    n_edges: int = 10,
    modes: Sequence[EdgeMode] = ("ablate", "boost"),
    scopes: Sequence[Scope] = ("local", "global"),
    n_controls: int = 1,
    seed: int = 0,
    authors_receiver: bool = False,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Ablate and boost the heaviest edges, each in the prompts it occurs in, with controls.

    prompts: rows of ioi_prompts; trace_edges: frame ioi_trace_edges, of which the rows of these
    prompts are used. Returns frame intervention_results.
    """
    trace_edges = trace_edges.filter(pl.col("prompt").is_in(prompts["prompt"].implode()))
    interventions = edge_interventions(
        heaviest_edges(trace_edges, n_edges),
        modes=modes,
        scopes=scopes,
        n_controls=n_controls,
        seed=seed,
        authors_receiver=authors_receiver,
    )
    editors = {"edge": EdgeEditor(model, trace_edges)}
    return run_interventions(
        model, prompts, interventions, editors, batch_rows=batch_rows, progress=progress
    )


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


# ---- kind edge -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Places:
    """Where one edge is edited in one group: one entry per (row, position).

    row, position [place]; basis [place, d_model, m] orthonormal columns; slices [place]: |S|.
    """

    members: Tensor
    row: Tensor
    position: Tensor
    basis: Tensor
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
    receiver: EdgeReceiver | None
    strength: float
    row: Tensor
    position: Tensor
    basis: Tensor

    @property
    def first_layer(self) -> int:
        return self.upstream_layer if self.receiver is None else self.layer

    @property
    def reads(self) -> tuple[tuple[str, int], ...]:
        z = ("z", self.upstream_layer)
        return (z,) if self.receiver is None else (z, ("scale", self.layer))

    def direction(self, z: Tensor) -> Tensor:
        """h [place, d_model] from the upstream layer's z [row, position, head, d_head]."""
        own = z[self.row, self.position, self.upstream_head]
        o = own @ self.model.weights.W_O[self.upstream_layer, self.upstream_head]
        within = torch.einsum("pd,pdm->pm", o, self.basis)
        return torch.einsum("pm,pdm->pd", within, self.basis)

    def hooks(self, rows: slice, live: LiveRun) -> list[NamedHook]:
        row = self.row + rows.start

        def edit_attn_out(attn_out: Tensor, hook: Any) -> Tensor:
            h = self.direction(live.z(self.upstream_layer, rows))
            attn_out[row, self.position] += self.strength * h
            return attn_out

        def edit_projection(weight: Tensor) -> Any:
            def edit(value: Tensor, hook: Any) -> Tensor:
                h = self.direction(live.z(self.upstream_layer, rows))
                scale = live.scale(self.layer, rows)[self.row, self.position]
                value[row, self.position, self.head] += self.strength * (h / scale) @ weight
                return value

            return edit

        if self.receiver is None:
            return [(f"blocks.{self.upstream_layer}.hook_attn_out", edit_attn_out)]
        weights = self.model.weights
        projections = {"q": weights.W_Q, "k": weights.W_K, "v": weights.W_V}
        return [
            (
                f"blocks.{self.layer}.attn.hook_{name}",
                edit_projection(projections[name][self.layer, self.head]),
            )
            for name in self.receiver
        ]

    def select(self, keep: Tensor) -> "EdgeStep":
        new_row = torch.full((int(self.row.max()) + 1,), -1, device=self.row.device)
        new_row[keep] = torch.arange(len(keep), device=self.row.device)
        row = new_row[self.row]
        kept = row >= 0
        return replace(self, row=row[kept], position=self.position[kept], basis=self.basis[kept])


class EdgeEditor:
    """Editor of kind edge.

    trace_edges: frame ioi_trace_edges, or any frame with the columns of SITE_COLUMNS: which prompts
    an edge occurs in, at which positions, through which slices. Cosine and norm ratio are those of
    the residual stream at the edited position: after the upstream layer's attention (global), or at
    the downstream layer's input (local, where only one head sees the edit).
    """

    def __init__(self, model: LanguageModel, trace_edges: pl.DataFrame) -> None:
        if missing := [name for name in SITE_COLUMNS if name not in trace_edges.columns]:
            raise InterventionError(
                f"trace edges lack the columns {missing}; give the frame ioi_trace_edges"
            )
        heads = trace_edges.filter(pl.col("upstream_head").is_not_null())
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
        self._last: tuple[object, _Places | None] | None = None

    def check(self, interventions: Sequence[Intervention], prompts: pl.DataFrame) -> None:
        ids = prompts["prompt"].implode()
        for one in interventions:
            assert isinstance(one, EditEdge)
            sites = self._sites_of(one)
            if sites is None or sites.filter(pl.col("prompt").is_in(ids)).is_empty():
                raise InterventionError(
                    f"{one.id}: the edge {one.edge} was not traced in any of the "
                    f"{prompts.height} prompts; choose edges of ioi_trace_graph"
                )

    def plan(self, intervention: EditEdge, runs: Runs) -> Edit | None:
        run = runs.of()
        places = self._places(intervention, run)
        if places is None:
            return None
        is_global = intervention.scope == "global"
        sign = 1.0 if intervention.mode == "boost" else -1.0
        step = EdgeStep(
            self.model,
            intervention.upstream_layer,
            intervention.upstream_head,
            intervention.layer,
            intervention.head,
            None if is_global else intervention.receiver,
            sign * intervention.alpha,
            places.row,
            places.position,
            places.basis,
        )
        h = step.direction(run.z[step.upstream_layer][places.members])
        stream = run.resid_mid[step.upstream_layer] if is_global else run.resid_pre[step.layer]
        before = stream[places.members][places.row, places.position]
        cosine, norm_ratio = cosine_and_norm_ratio(
            before, before + step.strength * h, places.row, len(places.members)
        )
        return Edit(run, places.members, (step,), cosine, norm_ratio, places.n_slices, places.pairs)

    def _places(self, one: EditEdge, run: CleanRun) -> _Places | None:
        """Positions and bases; kept for the next call, which is often the same edge."""
        name = (run.group.prompt, one.edge, one.is_control, one.seed, one.occurrence)
        if self._last is None or self._last[0] != name:
            self._last = (name, self._work_out(one, run))
        return self._last[1]

    def _work_out(self, one: EditEdge, run: CleanRun) -> _Places | None:
        device = run.logits.device
        place_of = {prompt: row for row, prompt in enumerate(run.group.prompt)}
        known = self._sites_of(one)
        assert known is not None  # `check` has seen to it
        sites = known.filter(pl.col("prompt").is_in(list(place_of)))
        slices = self._slices(one, sites)
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
            position = destination if one.side == "destination" else source
            basis = self._vectors(one, destination - source)[:, chosen]
            vectors.setdefault((row, position), []).append(basis)
            counts[row] += len(chosen)
            pairs.append((row, destination, source))
        row_index, destinations, sources = (
            torch.tensor(c).to(device) for c in zip(*pairs, strict=True)
        )
        rows, positions = (torch.tensor(c).to(device) for c in zip(*vectors, strict=True))
        return _Places(
            members=torch.tensor(members, device=device),
            row=rows,
            position=positions,
            basis=_stacked_bases(list(vectors.values())).to(device, self.model.dtype),
            n_slices=counts,
            pairs=Pairs(one.layer, one.head, row_index, destinations, sources),
        )

    def _sites_of(self, one: EditEdge) -> pl.DataFrame | None:
        """Rows (prompt, destination, source, slices) of an edge, None where it was not traced."""
        if one.occurrence == "kept":
            return self._sites.get(_key(one))
        return self._pairs.get((one.layer, one.head, one.destination_role, one.source_role))

    def _slices(
        self, one: EditEdge, sites: pl.DataFrame
    ) -> list[tuple[int, int, int, list[int] | None]]:
        """(prompt, destination, source, slices) of every pair; None where a control runs out."""
        rows = sites.select("prompt", "destination", "source", "slices").iter_rows()
        if not one.is_control:
            return [(p, i, j, list(s)) for p, i, j, s in rows]
        assert one.seed is not None
        return [
            (p, i, j, control_slices(s, self.rank, one.seed, f"{one.edge}|{p}|{i}|{j}"))
            for p, i, j, s in rows
        ]

    def _vectors(self, one: EditEdge, offset: int) -> Tensor:
        """Singular vectors of the edited side without the appended coordinate [d_model, rank]."""
        U, _, V = self.omega.vectors(one.layer, one.head, offset)
        return (U if one.side == "destination" else V)[:-1]


# ---- private -------------------------------------------------------------------------------------


def _key(one: EditEdge) -> Key:
    return (
        one.upstream_layer,
        one.upstream_head,
        one.layer,
        one.head,
        one.destination_role,
        one.source_role,
        one.side,
    )


def _stacked_bases(vectors: Sequence[Sequence[Tensor]]) -> Tensor:
    """Orthonormal bases [place, d_model, m], m the largest number of vectors of a place."""
    joined = [torch.cat(list(own), dim=1) for own in vectors]
    width = max(own.shape[1] for own in joined)
    padded = [torch.nn.functional.pad(own, (0, width - own.shape[1])) for own in joined]
    return orthonormal_basis(torch.stack(padded))
