"""Ablating and boosting traced edges (FC24 section 5).

Belongs here: kind edge. Does not belong here: the choice of edges (edge_choice.py), where they are
edited and how (traced_edges.py), tracing (circuits/trace.py).

An edge says that head U of an earlier layer writes, at the destination (or source) position of a
pair that head D attends over, into the slices S of D's Omega. With o = z W_O of U at that position
(no bias) the edit's direction is
    h = P o,   P = the orthogonal projector onto span{u_k[:d_model] : k in S}   (source side: v_k).
u_k has d_model + 1 coordinates; the last one reads the appended 1, which no head writes, so it is
left out. The truncated vectors are not orthonormal any more. FC24 uses U_S U_S^T as it is; here
they are orthonormalised first, so that ablating takes out exactly what o contributes along the
slices: u_k . (o - h) = 0 for every k in S. The two agree where the biases b_Q, b_K are small.

Modes sad_ablate and sad_boost are the published code's edits, for comparison (sad_edges.py lists
the differences): h from U_S U_S^T and the appended 1, centred, of the unedited run.

Global: U's attention output at that position -+ alpha h; every later reader sees it, through its
own LayerNorm. Local: D's normalised input there -+ alpha h / s, s being the scale of D's norm; q
alone on the destination side, k alone on the source side, or "qkv": all three, as in FC24's code.
Grouped-query attention: heads of a query group share one key. A local edit of it (receiver "k", and
the keys and values of "qkv") is seen by all of them; `shared_with` names the others. Edits of the
query, and global ones, are the same as elsewhere.
Control: as many slices, drawn without replacement and with a seed from the complement of S, in the
place of S. Prompts whose S covers more than half of the slices have no control of equal size and
are left out of it.
Occurrence: an edge is kept in some of the prompts in which D's pair was traced. "kept" edits it in
those; "traced" in every prompt in which D's pair was traced, through that pair's S, as FC24's code
does, so that all edges into one pair are compared on the same prompts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import polars as pl
from pydantic import model_validator

from mechinterp_assets.interventions.edge_keys import EdgeKey
from mechinterp_assets.interventions.spec import Intervention, Site
from mechinterp_assets.interventions.terms import (
    ALL_POSITIONS,
    Head,
    Index,
    InterventionError,
    Scope,
    Side,
    Weights,
    heads_text,
)
from mechinterp_assets.model.shape import ModelShape

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import CleanRun, Edit, Runs
    from mechinterp_assets.interventions.traced_edges import EdgePlaces, TracedEdges

EdgeMode = Literal["ablate", "boost", "sad_ablate", "sad_boost"]
EdgeReceiver = Literal["q", "k", "qkv"]
Occurrence = Literal["kept", "traced"]


class EditEdge(Intervention):
    """What head `upstream_head` of `upstream_layer` writes into the slices through which head
    `head` of `layer` reads it: ablate or boost, or the same as FC24's published code does it
    (sad_ablate, sad_boost; local ones through "qkv").

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
        if self.is_published and self.scope == "local" and self.receiver != "qkv":
            raise ValueError(f"{self.mode} replaces q, k and v of the reader; say receiver: qkv")
        if self.scope == "global" and self.receiver is not None:
            raise ValueError("a global edit is seen by every reader; leave receiver out")
        if self.is_control != (self.seed is not None):
            raise ValueError("seed is given exactly for a control")
        if self.position_role not in (ALL_POSITIONS, self.edited_role):
            raise ValueError(f"the edited position of this edge is {self.edited_role}")
        return self

    @property
    def is_published(self) -> bool:
        """Whether the edit is that of FC24's published code."""
        return self.mode in ("sad_ablate", "sad_boost")

    @property
    def edited_role(self) -> str:
        return self.destination_role if self.side == "destination" else self.source_role

    @property
    def roles(self) -> tuple[str, ...]:
        """None: an edge is edited where it was traced."""
        return ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The score of the edited pair is a metric."""
        return ("attn_scores",)

    @property
    def edited_site(self) -> str:
        return "attn_out" if self.scope == "global" else f"{self.receiver}_input"

    @property
    def edge(self) -> str:
        """The edge without what is done to it: upstream head > downstream head, pair, side."""
        return str(self.key)

    @property
    def key(self) -> EdgeKey:
        """The edge, as traces name it."""
        return EdgeKey(
            self.upstream_layer,
            self.upstream_head,
            self.layer,
            self.head,
            self.destination_role,
            self.source_role,
            self.side,
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

    def shared_with(self, shape: ModelShape) -> tuple[Head, ...]:
        """Heads of the downstream head's query group, where its key is edited."""
        if self.receiver in (None, "q"):
            return ()
        group = shape.query_group(self.head)
        return tuple((self.layer, head) for head in group if head != self.head)

    def sites_in(self, shape: ModelShape) -> tuple[Site, ...]:
        """A key that heads share is one site, whichever of them is named."""
        if not self.shared_with(shape):
            return self.sites
        group = heads_text([(self.layer, head) for head in shape.query_group(self.head)])
        return tuple(site.model_copy(update={"detail": group}) for site in self.sites)

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        from mechinterp_assets.model.identities import identities_of  # imports torch

        if not identities_of(context.model).hooks_scores:
            raise InterventionError(
                f"{context.model.source} ({context.model.config.architecture}): the score of the "
                "edited pair cannot be read, because TransformerLens's bridge shows the attention "
                "pattern in its place; edit the head (head_ablation, activation_patching) instead"
            )
        if context.trace_edges is None:
            raise InterventionError(
                f"{interventions[0].id}: there are no traced edges; give the frame trace_edges "
                "of these prompts as trace_edges"
            )
        traced = traced_edges(context)
        for one in interventions:
            if not traced.occurs(one.key, one.occurrence, prompts["prompt"]):
                raise InterventionError(
                    f"{one.id}: the edge {one.edge} was not traced in any of the "
                    f"{prompts.height} prompts; choose edges of trace_graph"
                )

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        from mechinterp_assets.interventions.traced_edges import EdgeStep, edge_edit

        run = runs.of()
        places = traced_edges(context).places(self.key, run, self.occurrence, self.seed)
        if places is None:
            return None
        if self.is_published:
            return self._published(run, places, context)
        step = EdgeStep(
            context.model,
            self.upstream_layer,
            self.upstream_head,
            self.layer,
            self.head,
            None if self.scope == "global" else self.receiver,
            self.alpha if self.mode == "boost" else -self.alpha,
            places.row,
            places.position,
            places.basis,
        )
        return edge_edit(run, step, places)

    def _published(self, run: "CleanRun", places: "EdgePlaces", context: "EditContext") -> "Edit":
        from mechinterp_assets.interventions.sad_edges import (
            SadEdgeStep,
            input_scale,
            sad_direction,
        )
        from mechinterp_assets.interventions.traced_edges import moved_by

        model, is_local = context.model, self.scope == "local"
        strength = self.alpha if self.mode == "sad_boost" else -self.alpha
        moved = strength * sad_direction(
            model, run, places, (self.upstream_layer, self.upstream_head)
        )
        delta = moved
        if is_local:
            scale = input_scale(model, run, self.layer)[places.members]
            delta = moved / scale[places.row, places.position]
        step = SadEdgeStep(
            *(model, self.upstream_layer, self.layer, self.head, is_local),
            *(places.row, places.position, delta),
        )
        return moved_by(run, step, places, moved, is_local)


def traced_edges(context: "EditContext") -> "TracedEdges":
    """The context's traced edges, with the singular vectors of its model."""
    from mechinterp_assets.interventions.traced_edges import TracedEdges

    assert context.trace_edges is not None  # `check` has seen to it
    edges = context.trace_edges
    return context.once("traced edges", lambda: TracedEdges(context.model, edges))
