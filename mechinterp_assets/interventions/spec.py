"""Interventions as validated data: what is changed, where, in which way.

Belongs here: the description of an intervention, its stable id, and the checks that need only the
model's shape and the prompts. Does not belong here: hooks and runs (runner.py and one file per
kind).

Conventions, for every kind:
  alpha   strength of the edit; 0 changes nothing, 1 is the full edit
  ablate  removes: x - alpha h        boost  adds: x + alpha h
  zero    z -> (1 - alpha) z          mean   z -> z + alpha (mean - z)
  everything after the edit is recomputed, MLPs and LayerNorms included (via_mlp = True)
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mechinterp_assets.model_shape import ModelShape

Kind = Literal["head_ablation", "edge"]
Mode = Literal["zero", "mean", "ablate", "boost"]
Side = Literal["destination", "source"]
Scope = Literal["local", "global"]
Receiver = Literal["q", "k", "qkv"]
ALL_POSITIONS = "all"
MODES: dict[str, tuple[Mode, ...]] = {
    "head_ablation": ("zero", "mean"),
    "edge": ("ablate", "boost"),
}
EDGE_FIELDS = (
    "upstream_layer",
    "upstream_head",
    "destination_role",
    "source_role",
    "side",
    "scope",
)

Index = Annotated[int, Field(ge=0)]


class InterventionError(ValueError):
    """An intervention that cannot be run; the message names the value and the remedy."""


class Intervention(BaseModel):
    """One edit.

    kind head_ablation: `head` of `layer`, its output z at `position_role` ("all": every position),
        mode zero or mean.
    kind edge (FC24 section 5): what head `upstream_head` of `upstream_layer` writes into the slices
        through which head `head` of `layer` reads it, mode ablate or boost. `side` says whether it
        is written at the destination (query) or the source (key) of the downstream head's pair,
        whose roles are `destination_role` and `source_role`.
        scope global: the upstream head's attention output is edited, every later reader sees it.
        scope local: only the downstream head's normalised input is; `receiver` says through which
        of its weights: "q" (destination side), "k" (source side) or "qkv" (the authors' variant).
        is_control: as many slices drawn at random, with `seed`, outside the edge's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    mode: Mode
    layer: Index
    head: Index
    position_role: str = ALL_POSITIONS
    upstream_layer: Index | None = None
    upstream_head: Index | None = None
    destination_role: str | None = None
    source_role: str | None = None
    side: Side | None = None
    scope: Scope | None = None
    receiver: Receiver | None = None
    is_control: bool = False
    seed: int | None = None
    alpha: float = Field(default=1.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> "Intervention":
        if self.mode not in MODES[self.kind]:
            raise ValueError(f"mode {self.mode!r} is not one of {self.kind}: {MODES[self.kind]}")
        given = [name for name in EDGE_FIELDS if getattr(self, name) is not None]
        if self.kind != "edge":
            if given or self.receiver is not None or self.is_control:
                raise ValueError(f"{[*given, 'receiver', 'is_control']} belong to kind 'edge'")
            return self
        if missing := [name for name in EDGE_FIELDS if name not in given]:
            raise ValueError(f"an edge needs {missing}")
        assert self.upstream_layer is not None
        if self.upstream_layer >= self.layer:
            raise ValueError(
                f"upstream layer {self.upstream_layer} does not lie before layer {self.layer}; "
                "an edge goes from an earlier head to a later one"
            )
        fits = {"destination": ("q", "qkv"), "source": ("k", "qkv")}[str(self.side)]
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
        """Role of the position whose activations are edited."""
        if self.kind != "edge":
            return self.position_role
        role = self.destination_role if self.side == "destination" else self.source_role
        assert role is not None
        return role

    @property
    def site(self) -> str:
        """What is edited, in TransformerLens's hook names: z, attn_out, or a split q/k/v input."""
        if self.kind == "head_ablation":
            return "z"
        return "attn_out" if self.scope == "global" else f"{self.receiver}_input"

    @property
    def edge(self) -> str:
        """The edge without what is done to it: upstream head > downstream head, pair, side."""
        return (
            f"L{self.upstream_layer}H{self.upstream_head}>L{self.layer}H{self.head}"
            f":{self.destination_role}<-{self.source_role}:{self.side}"
        )

    @property
    def id(self) -> str:
        """Stable identifier: the same for the same intervention in every run."""
        strength = "" if self.alpha == 1.0 else f":alpha={self.alpha:g}"
        if self.kind == "head_ablation":
            return f"{self.mode}:L{self.layer}H{self.head}:{self.position_role}{strength}"
        where = f"{self.scope}" + (f"-{self.receiver}" if self.receiver else "")
        control = f":control-{self.seed}" if self.is_control else ""
        return f"{self.mode}:{where}:{self.edge}{control}{strength}"


class InterventionSet(BaseModel):
    """Several interventions made together in one forward pass, under one name.

    A later member sees what an earlier one did: an edge's h is computed from the upstream head's
    output in the edited run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    members: tuple[Intervention, ...]

    @model_validator(mode="after")
    def _distinct_sites(self) -> "InterventionSet":
        if len(self.members) < 2:
            raise ValueError(f"set {self.name!r} has {len(self.members)} members; give at least 2")
        seen: dict[tuple[object, ...], Intervention] = {}
        for member in self.members:
            for key, other in seen.items():
                if _same_site(key, _site_key(member)):
                    raise ValueError(
                        f"set {self.name!r} edits {_describe(member)} twice, by {other.id} and "
                        f"{member.id}; drop one of them"
                    )
            seen[_site_key(member)] = member
        return self

    @property
    def id(self) -> str:
        """Stable identifier."""
        return f"set:{self.name}"


Planned = Intervention | InterventionSet


def members(planned: Planned) -> tuple[Intervention, ...]:
    """The interventions made together: one, or those of a set."""
    return planned.members if isinstance(planned, InterventionSet) else (planned,)


def validate(
    interventions: Sequence[Planned], shape: ModelShape, roles: Mapping[str, Collection[int]]
) -> None:
    """Check interventions against a model's shape and the prompts; raises InterventionError.

    roles: role name -> ids of the prompts that lack it.
    """
    ids = [planned.id for planned in interventions]
    if doubled := sorted({i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else ()):
        raise InterventionError(
            f"interventions {doubled} are given more than once; drop the copies"
        )
    for planned in interventions:
        for one in members(planned):
            _check_heads(one, shape)
            _check_role(one, roles)
            if (
                one.receiver in ("k", "qkv")
                and one.scope == "local"
                and shape.n_kv_heads != shape.n_heads
            ):
                raise InterventionError(
                    f"{one.id}: receiver {one.receiver!r} edits a key of head {one.head}, but "
                    f"{shape.n_heads // shape.n_kv_heads} heads of this model share each key "
                    "(grouped-query attention); use scope 'global' or the destination side"
                )


# ---- private -------------------------------------------------------------------------------------


def _check_heads(one: Intervention, shape: ModelShape) -> None:
    named = [("layer", one.layer, shape.n_layers), ("head", one.head, shape.n_heads)]
    if one.upstream_head is not None:
        named.append(("upstream_head", one.upstream_head, shape.n_heads))
    for name, value, size in named:
        if value >= size:
            raise InterventionError(
                f"{one.id}: {name} {value} does not exist; the model has 0..{size - 1}"
            )


def _check_role(one: Intervention, roles: Mapping[str, Collection[int]]) -> None:
    if one.kind == "edge" or one.position_role == ALL_POSITIONS:
        return
    if one.position_role not in roles:
        raise InterventionError(
            f"{one.id}: the prompts have no role {one.position_role!r}; "
            f"choose one of {[ALL_POSITIONS, *roles]}"
        )
    if lacking := sorted(roles[one.position_role]):
        raise InterventionError(
            f"{one.id}: {len(lacking)} prompts have no {one.position_role} (prompt {lacking[0]}, "
            "for one); leave these prompts out or choose another role"
        )


def _site_key(one: Intervention) -> tuple[object, ...]:
    if one.kind == "head_ablation":
        return ("z", one.layer, one.head, one.position_role)
    writer = (one.upstream_layer, one.upstream_head)
    if one.scope == "global":
        return ("attn_out", *writer, one.edited_role)
    return ("input", *writer, one.layer, one.head, one.side, one.edited_role)


def _same_site(left: tuple[object, ...], right: tuple[object, ...]) -> bool:
    if left[:-1] != right[:-1]:
        return False
    return left[-1] == right[-1] or ALL_POSITIONS in (left[-1], right[-1])


def _describe(one: Intervention) -> str:
    if one.kind == "head_ablation":
        return f"z of L{one.layer}H{one.head} at {one.position_role}"
    writer = f"the output of L{one.upstream_layer}H{one.upstream_head} at {one.edited_role}"
    return writer if one.scope == "global" else f"{writer} as read by L{one.layer}H{one.head}"
