"""Interventions as validated data: what is changed, where, in which way.

Belongs here: what all kinds have in common, stable ids, and the checks that need only the model's
shape and the prompts' roles. Does not belong here: one kind (its own file in kinds/), reading
descriptions (parsing.py), several interventions made together (sets.py), runs (runner.py).

A kind is one file in kinds/: its fields, what it says about itself below, and `plan`, which works
the edit out. Torch is imported inside `plan` and `check` alone, so that descriptions can be read
and checked without it.

Conventions, for every kind:
  alpha     strength of the edit; 0 changes nothing, 1 is the full edit (head_scaling: the factor
            itself, so that 1 changes nothing)
  ablate    removes: x - alpha h        boost    adds: x + alpha h
  ablation  x -> x + alpha (other - x), other as the mode says (ablation/modes.py); noise, denoise
            likewise
  clean     the prompt as it stands     corrupt  the counterfactual prompt of the same pair
  weights   processed (LayerNorm folded, writing weights centred, b_V folded into b_O) or raw; SAEs
            are trained on raw z, Omega is a matter of processed weights
Everything after the edit is recomputed, MLPs and LayerNorms included, unless a kind says otherwise.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import polars as pl
from pydantic import Field, model_validator

from mechinterp_assets.interventions.terms import (
    ALL_POSITIONS,
    EVERYWHERE,
    Draw,
    Frozen,
    Head,
    Index,
    InterventionError,
    Role,
    Watched,
    Weights,
)
from mechinterp_assets.model.shape import ModelShape

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs


class Intervention(Frozen, ABC):
    """One edit. Every kind is a class of its own, in the file of its name in kinds/.

    layer: the edited layer (that of the reader where a kind has one). position_role: role of the
    edited position, "all" for every one, "all_but_bos" for every one from 1 on. watch: a head and
    pair whose attention score is a metric too. weights: the view of the model, by default that of
    the kind.
    """

    kind: str
    layer: Index
    position_role: Role = ALL_POSITIONS
    alpha: float = Field(default=1.0, allow_inf_nan=False)
    weights: Weights | None = None
    watch: Watched | None = None

    default_weights: ClassVar[Weights] = "processed"
    possible_weights: ClassVar[tuple[Weights, ...]] = ("processed", "raw")

    @model_validator(mode="after")
    def _weights_are_possible(self) -> "Intervention":
        if self.weights is not None and self.weights not in self.possible_weights:
            raise ValueError(
                f"kind {self.kind!r} runs on {self.possible_weights[0]} weights; leave weights out"
            )
        return self

    # ---- what a kind says about itself -----------------------------------------------------------

    @property
    @abstractmethod
    def edited_site(self) -> str:
        """What is edited, in TransformerLens's hook names, or a split input such as q_input."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The id without the parts that all kinds share."""

    @property
    @abstractmethod
    def sites(self) -> tuple["Site", ...]:
        """What is edited, so that a set can tell that a site is edited twice."""

    @property
    def edited_role(self) -> str:
        """Role of the position whose activations are edited."""
        return self.position_role

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that a prompt must have for this edit."""
        return (self.position_role,)

    @property
    def source(self) -> str | None:
        """Variant that activations come from, or whose run is edited."""
        return None

    @property
    def exchanged_roles(self) -> tuple[str, ...]:
        """Roles that a counterfactual must have; "all" where all positions are exchanged."""
        named = (role for role in self.roles if role not in EVERYWHERE)
        return tuple(dict.fromkeys((self.position_role, *named)))

    @property
    def edits_source(self) -> bool:
        """Whether the counterfactual's run is edited (denoising) and not the clean one."""
        return False

    @property
    def drawn(self) -> Draw | None:
        """Other prompts that activations come from, drawn by a seed."""
        return None

    @property
    def reference(self) -> str | None:
        """What activations are taken from, for ablations (ablation/modes.py)."""
        return None

    @property
    def needs(self) -> tuple[str, ...]:
        """Activations of unedited runs that it takes, beside the residual stream and z."""
        return ()

    @property
    def sae_layers(self) -> tuple[int, ...]:
        """Layers whose SAEs it needs."""
        return ()

    @property
    def ablated_edit(self) -> "Intervention | None":
        """The intervention whose run recovered fractions are normalised by."""
        return None

    @property
    def columns(self) -> dict[str, object]:
        """Columns of intervention_results that are not fields of the same name."""
        return {}

    def check_shape(self, shape: ModelShape) -> None:
        """Raise InterventionError for layers and heads that the model does not have."""
        named = [("layer", self.layer, shape.n_layers)]
        if isinstance(head := getattr(self, "head", None), int):
            named.append(("head", head, shape.n_heads))
        if self.watch is not None:
            named += [
                ("watch.layer", self.watch.layer, shape.n_layers),
                ("watch.head", self.watch.head, shape.n_heads),
            ]
        self.check_indices(named)

    def shared_with(self, shape: ModelShape) -> tuple[Head, ...]:
        """Heads that see the edit beside those it names, because they share what is edited.

        Grouped-query attention: query heads of a group have one key and one value, so that none of
        them can be given another than the rest.
        """
        return ()

    def sites_in(self, shape: ModelShape) -> tuple["Site", ...]:
        """What is edited in a model of this shape: `sites`, unless heads share it."""
        return self.sites

    def check_indices(self, named: Sequence[tuple[str, int, int]]) -> None:
        """Raise InterventionError for the first (name, value, size) out of range."""
        for name, value, size in named:
            if value >= size:
                raise InterventionError(
                    f"{self.id}: {name} {value} does not exist; the model has 0..{size - 1}"
                )

    # ---- running it ------------------------------------------------------------------------------

    @abstractmethod
    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        """The edit worked out for one group of prompts, None where it applies to none of them."""

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        """Raise InterventionError for what cannot be run, before anything is.

        interventions: all of this kind that are asked for. Counterfactuals are checked by the
        runner, which finds them.
        """

    # ---- the same for all kinds ------------------------------------------------------------------

    @property
    def view(self) -> Weights:
        """Weights that it runs on."""
        return self.weights or self.default_weights

    @property
    def id(self) -> str:
        """Stable identifier: the same for the same intervention in every run."""
        parts = [self.label]
        if self.alpha != 1.0:
            parts.append(f"alpha={self.alpha:g}")
        if self.view != self.default_weights:
            parts.append(self.view)
        if (versus := getattr(self, "versus", None)) is not None:
            parts.append(f"vs-{versus}")
        if self.watch is not None:
            parts.append(f"watch={self.watch}")
        return ":".join(parts)


class Site(Frozen):
    """Something that can be edited once: an activation of a layer, of one head or all, at a role.

    what: any words that two edits of the same thing share; part: a channel or feature, None for
    all; detail: its only reader, where there is one.
    """

    what: str
    layer: int
    head: int | None = None
    role: str = ALL_POSITIONS
    part: int | None = None
    detail: str = ""

    def overlaps(self, other: "Site") -> bool:
        """Whether an edit of one touches what an edit of the other does."""
        everywhere = self.role in EVERYWHERE or other.role in EVERYWHERE
        return (self.role == other.role or everywhere) and self.overlaps_at_one_position(other)

    def overlaps_at_one_position(self, other: "Site") -> bool:
        """Whether the two would overlap if their roles stood at the same position."""
        same = (self.what, self.layer, self.detail) == (other.what, other.layer, other.detail)
        heads = None in (self.head, other.head) or self.head == other.head
        parts = None in (self.part, other.part) or self.part == other.part
        return same and heads and parts

    def __str__(self) -> str:
        head = "" if self.head is None else f"H{self.head}"
        part = "" if self.part is None else f" ({self.part})"
        seen = f" as read by {self.detail}" if self.detail else ""
        return f"{self.what}{part} of L{self.layer}{head} at {self.role}{seen}"


def residual_site(site: str, layer: int, role: str) -> Site:
    """Site of an activation of the residual stream or of what is added to it.

    resid_post of one layer is resid_pre of the next.
    """
    if site == "resid_post":
        return Site(what="resid_pre", layer=layer + 1, role=role)
    return Site(what=site, layer=layer, role=role)


def check_roles(owner: str, needed: Sequence[str], roles: Mapping[str, Collection[int]]) -> None:
    """Raise InterventionError unless every prompt has the roles `needed` (EVERYWHERE is none)."""
    for role in needed:
        if role in EVERYWHERE:
            continue
        if role not in roles:
            raise InterventionError(
                f"{owner}: the prompts have no role {role!r}; choose one of {[*EVERYWHERE, *roles]}"
            )
        if lacking := sorted(roles[role]):
            raise InterventionError(
                f"{owner}: {len(lacking)} prompts have no {role} (prompt {lacking[0]}, "
                "for one); leave these prompts out or choose another role"
            )
